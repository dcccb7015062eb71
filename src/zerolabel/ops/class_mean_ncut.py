"""A soft normalised cut whose weights compare pixels with the mean of a class, not with each other.

The weight of two pixels in class k is a Gaussian of their distance times how near the second is, in
value, to the mean of the class. Written for every class, that is two dense filters per class; but
the Gaussian is symmetric, so what it makes of p_k w_k, summed over p_k, is what it makes of p_k,
summed over p_k w_k. One filter of the probabilities serves both, and falls apart into two lines.
Shapes: `B` images, `C` bands, `K` classes, `H W` pixels, `N = H*W`.

Source: the cut of X. Xia and B. Kulis, "W-Net: a deep model for fully unsupervised image
segmentation", 2017, in a form that public re-implementations of W-Net train with.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from zerolabel.errors import UsageError

FEW, LITTLE = 1e-5, 1e-6  # keep a class that is nowhere from dividing by 0; as published


def class_mean_ncut(
    probabilities: Tensor,
    images: Tensor,
    *,
    radius: int = 4,
    sigma_place: float = 5.0,
    sigma_value: float = 1.0,
    pooled: bool = False,
) -> Tensor:
    """Compute the soft normalised cut with weights relative to the mean of each class.

    With m_k the mean of the values weighted by p_k, q_k(u) the squared distance of pixel u from it
    (the sum over bands) and w_k = exp(-q_k^2 / sigma_value^2), where q_k is squared once more:
    K - sum_k |sum_u p_k (G * (p_k w_k))| / |sum_u p_k (G * w_k)|, where G is a square Gaussian with
    peak 1 and pixels off the image count as 0. The gradient is autograd's, through means and
    weights too.

    Args:
        probabilities: float (B, K, H, W), 0..1.
        images: float (B, C, H, W), 0..1, on the same device.
        radius: of the Gaussian, in pixels; its sides are 2 * radius + 1. 0 or more.
        sigma_place: its standard deviation in pixels.
        sigma_value: what q_k is compared with.
        pooled: whether both sums run over all images of the batch, as published, instead of one.

    Returns:
        float32 or, from float64, float64 (B,), 0..K. Pooled, one value B times: its mean is the
        loss of the batch.

    Raises:
        UsageError: shapes that do not fit together, or a setting out of range.
    """
    _check(probabilities, images, radius, sigma_place, sigma_value)
    dtype = torch.promote_types(probabilities.dtype, torch.float32)
    with torch.autocast(probabilities.device.type, enabled=False):
        p, x = probabilities.to(dtype), images.to(dtype)
        near = _near_mean(p.flatten(2), x.flatten(2), sigma_value)  # (B, K, N)
        seen = _blur(p, radius, sigma_place).flatten(2) * near
        inside, total = (seen * p.flatten(2)).sum(2), seen.sum(2)  # (B, K)
    if pooled:
        inside, total = (v.sum(0, keepdim=True).expand_as(v) for v in (inside, total))
    return (1 - (inside / (total + LITTLE)).abs()).sum(1)


def _near_mean(p: Tensor, x: Tensor, sigma: float) -> Tensor:
    """Return how near values (B, C, N) are to the means of classes (B, K, N), 0..1 (B, K, N)."""
    means = p @ x.transpose(1, 2) / p.shape[2] / (p.mean(2, keepdim=True) + FEW)  # (B, K, C)
    lengths = means.square().sum(2, keepdim=True) + x.square().sum(1, keepdim=True)
    apart = torch.baddbmm(lengths, means, x, alpha=-2)
    return (apart.square() * (-1 / sigma**2)).exp()


def _blur(p: Tensor, radius: int, sigma: float) -> Tensor:
    """Filter maps (B, K, H, W) with a Gaussian of peak 1; off the image everything is 0."""
    K = p.shape[1]
    steps = torch.arange(-radius, radius + 1, device=p.device, dtype=p.dtype)
    line = (steps.square() / (-2 * sigma**2)).exp().expand(K, 1, 1, -1)
    across = F.conv2d(p, line, padding=(0, radius), groups=K)
    return F.conv2d(across, line.transpose(2, 3), padding=(radius, 0), groups=K)


def _check(
    probabilities: Tensor, images: Tensor, radius: int, sigma_place: float, sigma_value: float
) -> None:
    p, x = tuple(probabilities.shape), tuple(images.shape)
    if len(p) != 4 or len(x) != 4 or 0 in p + x or (p[0], *p[2:]) != (x[0], *x[2:]):
        raise UsageError(
            f"Expected probabilities (B, K, H, W) and images (B, C, H, W), found {p} and {x}."
        )
    if not probabilities.is_floating_point() or not images.is_floating_point():
        found = f"{probabilities.dtype} and {images.dtype}"
        raise UsageError(f"Expected floating probabilities and images, found {found}.")
    if radius < 0 or not min(sigma_place, sigma_value) > 0:
        found = f"{radius}, {sigma_place} and {sigma_value}"
        raise UsageError(f"Expected a radius of 0 or more and sigmas above 0, found {found}.")
