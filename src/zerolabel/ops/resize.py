"""Label-safe and antialiased resizing, and the guided filter that follows the photo's edges."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from zerolabel.ops.threads import threads_for
from zerolabel.types import LabelMap


def resize(images: Tensor, size: tuple[int, int], *, mode: str = "bicubic") -> Tensor:
    """Resize images with antialiasing.

    Args:
        images: uint8 or float32 (B, C, H, W).
        size: target (H, W) in pixels.
        mode: "bicubic" or "bilinear".

    Returns:
        Same dtype, (B, C, *size). Within 1 grey level of Pillow's result for a uint8 image that
        shrinks, within 2 for one that grows, if Pillow too takes columns before rows.
    """
    if tuple(images.shape[-2:]) == tuple(size):
        return images
    if images.dtype == torch.uint8 and tuple(size) == (1, 1):  # torch's uint8 kernel fails on it
        return resize(images.float(), size, mode=mode).round().clamp(0, 255).byte()
    return F.interpolate(images, size=size, mode=mode, antialias=True, align_corners=False)


def nearest(length: int, size: int) -> NDArray[np.int64]:
    """Find which of `length` pixels is at the centre of each of `size`, exactly: int64 (size,)."""
    return (2 * np.arange(size, dtype=np.int64) + 1) * length // (2 * size)


def resize_labels(labels: LabelMap, size: tuple[int, int]) -> LabelMap:
    """Bring a label map to another size, every pixel to the nearest one.

    Args:
        labels: integers (H, W).
        size: target (H, W) in pixels.

    Returns:
        The same dtype, of that size.
    """
    rows, columns = map(nearest, labels.shape, size)
    return labels[rows[:, None], columns]


def upsample(scores: Tensor, size: tuple[int, int]) -> Tensor:
    """Upsample per-category scores bilinearly; take the argmax afterwards, never before.

    Args:
        scores: float32 (K, h, w).
        size: target (H, W) in pixels.

    Returns:
        float32 (K, H, W).
    """
    return F.interpolate(scores[None], size=size, mode="bilinear", align_corners=False)[0]


def guided_argmax(
    scores: Tensor,
    image: Tensor,
    *,
    radius: int,
    epsilon: float = 1e-2,
    subsample: int = 4,
    strip: int = 1 << 20,
) -> Tensor:
    """Filter category scores along the edges of the photo and take the best category per pixel.

    The fast guided filter (He and Sun 2015) with a colour guide: local linear models
    q = a.I + b are fitted on a coarse grid and evaluated at full resolution, in strips so that
    memory stays bounded for images of any size.

    Args:
        scores: float32 (K, h, w), coarse category scores.
        image: uint8 (3, H, W), the photo.
        radius: window radius of the filter in pixels of the photo.
        epsilon: regularisation; larger ignores weaker edges (colours are scaled to 0..1).
        subsample: the models are fitted on a grid this many times coarser than the photo.
        strip: most pixels evaluated at once.

    Returns:
        int64 (H, W), values 0..K-1.
    """
    _, H, W = image.shape
    K = len(scores)
    size = (max(1, round(H / subsample)), max(1, round(W / subsample)))
    r = max(1, round(radius / subsample))
    out = torch.empty(H, W, dtype=torch.int64, device=image.device)
    with threads_for(12 * K * H * W):  # 3 products and 4 interpolations of 2 taps per pixel
        guide = resize(image[None], size, mode="bilinear")[0].float() / 255
        a, b = linear_models(guide, upsample(scores, size), r, epsilon)
        models = torch.cat([a.flatten(0, 1), b])  # (4K, *size)
        rows = max(1, strip // W)
        for top in range(0, H, rows):
            bottom = min(top + rows, H)
            fine = upsample_rows(models, (H, W), top, bottom)  # (4K, rows, W)
            pixels = image[:, top:bottom].float() / 255
            slopes = fine[: 3 * K].reshape(K, 3, *fine.shape[1:])
            out[top:bottom] = ((slopes * pixels).sum(1) + fine[3 * K :]).argmax(0)
    return out


def linear_models(guide: Tensor, scores: Tensor, r: int, epsilon: float) -> tuple[Tensor, Tensor]:
    """Fit q = a.I + b in every window (He et al. 2013, eq. 19-20) and average the models.

    Args:
        guide: (3, h, w), 0..1.
        scores: (K, h, w).
        r: window radius in cells.
        epsilon: added to the diagonal of the colour covariance.

    Returns:
        a (K, 3, h, w) and b (K, h, w).
    """
    mean_I = _box(guide, r)
    mean_p = _box(scores, r)
    products = (guide[:, None] * guide[None]).flatten(0, 1)  # (9, h, w)
    covariance = _box(products, r).reshape(3, 3, *guide.shape[1:]) - mean_I[:, None] * mean_I[None]
    covariance = covariance.permute(2, 3, 0, 1) + epsilon * torch.eye(3, device=guide.device)
    cross = _box((scores[:, None] * guide[None]).flatten(0, 1), r)
    cross = cross.reshape(-1, 3, *guide.shape[1:])
    cross = cross - mean_p[:, None] * mean_I[None]  # (K, 3, h, w)
    a = torch.linalg.solve(covariance, cross.permute(2, 3, 1, 0)).permute(3, 2, 0, 1)
    b = mean_p - (a * mean_I[None]).sum(1)
    return _box(a.flatten(0, 1), r).reshape(a.shape), _box(b, r)


def _box(x: Tensor, r: int) -> Tensor:
    """Mean over a (2r+1)^2 window clipped at the border, for every channel of (C, h, w)."""
    for side in (1, 2):
        x = x.transpose(side, 2)
        n = x.shape[-1]
        total = F.pad(x.double().cumsum(-1), (1, 0))
        index = torch.arange(n, device=x.device)
        low, high = (index - r).clamp_min(0), (index + r + 1).clamp_max(n)
        x = ((total[..., high] - total[..., low]) / (high - low)).float().transpose(side, 2)
    return x


def upsample_rows(x: Tensor, size: tuple[int, int], top: int, bottom: int) -> Tensor:
    """Rows top..bottom of `upsample(x, size)`, without computing the others."""
    h = x.shape[1]
    centres = ((torch.arange(top, bottom, device=x.device) + 0.5) * (h / size[0]) - 0.5).clamp(0)
    low = centres.floor().long().clamp_max(h - 1)
    high = (low + 1).clamp_max(h - 1)
    t = (centres - low)[None, :, None]
    first, last = int(low.min()), int(high.max()) + 1
    wide = F.interpolate(
        x[None, :, first:last], size=(last - first, size[1]), mode="bilinear", align_corners=False
    )[0]
    return torch.lerp(wide[:, low - first], wide[:, high - first], t)
