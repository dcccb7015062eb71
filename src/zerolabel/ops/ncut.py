"""The soft normalised cut of class probabilities, by one product of pair weights and probabilities.

Plainly, the weights of 224 x 224 pixels are a matrix of 10 GB; or the 81 neighbours of every pixel
in every class are laid side by side, 1 GB for 64 classes, and kept for the gradient. But weights of
pairs do not know the classes, a pair needs one weight for both directions, and with Y = W P at hand
the gradient needs nothing else. So Y is added up from shifted slices, a block at a time.
Shapes: `B` images, `C` bands, `K` classes, `H W` pixels, `n` offsets in half a disc.

Source: J. Shi and J. Malik, "Normalized cuts and image segmentation", PAMI 2000; its soft form of
X. Xia and B. Kulis, "W-Net: a deep model for fully unsupervised image segmentation", 2017.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from types import EllipsisType
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from zerolabel.errors import UsageError
from zerolabel.ops.class_mean_ncut import class_mean_ncut

__all__ = ["Affinity", "Weights", "class_mean_ncut", "hard_ncut", "soft_ncut", "weights"]

BLOCK = 1 << 19  # probabilities at once on a CPU: 2 MB, which stay near the cores
ROWS = 16  # of a block at least: it reads `radius` more on either side

Offset = tuple[int, int]  # rows and columns from a pixel to its neighbour
Place = tuple[EllipsisType, slice, slice]  # rows and columns of images or maps


@dataclass(frozen=True)
class Affinity:
    """How strongly two pixels of an image are bound together.

    Attributes:
        radius: distance in pixels beyond which pairs weigh nothing, 1 or more.
        sigma_value: how far values (0..255) may differ.
        sigma_place: how far apart pixels may be, in pixels.
        squared: whether squared distances are divided by squared sigmas, as in a Gaussian, or by
            the sigmas themselves, as some texts print it.
        inclusive: whether a distance of exactly `radius` is within it.
    """

    radius: int = 5
    sigma_value: float = 10.0
    sigma_place: float = 4.0
    squared: bool = True
    inclusive: bool = True

    def __post_init__(self) -> None:
        if self.radius < 1:
            raise UsageError(f"radius is a distance in pixels, 1 or more, found {self.radius}.")
        for name in ("sigma_value", "sigma_place"):
            if not getattr(self, name) > 0:
                raise UsageError(f"{name} must be above 0, found {getattr(self, name)}.")

    @property
    def offsets(self) -> tuple[Offset, ...]:
        """Neighbours in the half plane below a pixel, or right of it: each pair of pixels once."""
        r, limit = self.radius, self.radius**2 + self.inclusive
        plane = [(down, right) for down in range(r + 1) for right in range(-r, r + 1)]
        return tuple(o for o in plane if o > (0, 0) and o[0] ** 2 + o[1] ** 2 < limit)


@dataclass(frozen=True)
class Weights:
    """Symmetric weights of pairs of pixels; a pixel's weight with itself is 1.

    Attributes:
        offsets: from a pixel to its neighbours in half a disc, (rows, columns).
        maps: weight of each pixel with those neighbours, 0 where the neighbour is off the image,
            float32 (B, n, H, W).
        degree: sum of all weights of a pixel, its own included, float32 (B, H, W), 1 or more.
    """

    offsets: tuple[Offset, ...]
    maps: Tensor
    degree: Tensor


@torch.no_grad()
def weights(images: Tensor, affinity: Affinity) -> Weights:
    """Weigh pairs of pixels by how near they are, in value and in place.

    Args:
        images: float32 or float64 (B, C, H, W), 0..255, any number of bands.
        affinity: what "near" means.

    Returns:
        Weights of the images' type, on their device, without a gradient.

    Raises:
        UsageError: images of another shape, or without pixels.
    """
    if images.ndim != 4 or 0 in images.shape:
        raise UsageError(f"Expected images (B, C, H, W), found {tuple(images.shape)}.")
    x = images.to(torch.promote_types(images.dtype, torch.float32))
    (B, C, H, W), offsets = x.shape, affinity.offsets
    value, place = affinity.sigma_value, affinity.sigma_place
    if affinity.squared:
        value, place = value**2, place**2
    maps, degree = x.new_zeros(B, len(offsets), H, W), x.new_ones(B, H, W)
    for b in range(B):
        for i, offset in enumerate(offsets):
            first, second = _pair(offset, H, W)
            weight = maps[b, i][first]
            for c in range(C):  # sums over a middle axis are slow
                apart = x[b, c][first] - x[b, c][second]
                weight.addcmul_(apart, apart)
            weight.div_(-value).sub_((offset[0] ** 2 + offset[1] ** 2) / place).exp_()
            degree[b][first] += weight
            degree[b][second] += weight
    return Weights(offsets, maps, degree)


def soft_ncut(probabilities: Tensor, weights: Weights, *, pooled: bool = False) -> Tensor:
    """Compute the soft normalised cut, K - sum_k assoc(A_k, A_k) / assoc(A_k, V).

    assoc(A_k, A_k) is the sum over pixels u and v of p_k(u) w(u, v) p_k(v), and assoc(A_k, V) that
    of p_k(u) w(u, v). Probabilities of 1 / K everywhere give K - 1; a class that is nowhere adds 1
    and has no gradient. The gradient is computed with the value, if probabilities need one, in
    float32 or float64, under autocast too. Weights are constants.

    Args:
        probabilities: float (B, K, H, W), 0..1; their sum over classes need not be 1.
        weights: of the same images.
        pooled: whether both sums run over all images of the batch, which then are one graph: a
            class need not be in every image.

    Returns:
        float32 or, from float64, float64 (B,), 0..K. Pooled, one value B times: its mean is the
        loss of the batch. It can be differentiated once.

    Raises:
        UsageError: shapes that do not fit together.
    """
    B, _, H, W = weights.maps.shape
    shape = probabilities.shape
    if len(shape) != 4 or (shape[0], *shape[2:]) != (B, H, W) or not shape[1]:
        raise UsageError(f"Expected probabilities ({B}, K, {H}, {W}), found {tuple(shape)}.")
    if not probabilities.is_floating_point():
        raise UsageError(f"Expected floating probabilities, found {probabilities.dtype}.")
    slope = probabilities.requires_grad and torch.is_grad_enabled()
    cut: Tensor = _SoftCut.apply(  # type: ignore[no-untyped-call]
        probabilities, weights, pooled, slope
    )
    return cut


class _SoftCut(torch.autograd.Function):
    """Value and gradient from one product; backward only scales."""

    @staticmethod
    def forward(
        ctx: Any, probabilities: Tensor, weights: Weights, pooled: bool, slope: bool
    ) -> Tensor:
        p = probabilities.to(torch.promote_types(probabilities.dtype, torch.float32)).contiguous()
        maps, degree = weights.maps.to(p), weights.degree.to(p)[:, None]  # (B, 1, H, W)
        product = torch.empty_like(p)  # Y = W P
        inside, total = p.new_zeros(p.shape[:2]), p.new_zeros(p.shape[:2])  # N_k and D_k
        most = BLOCK if p.device.type == "cpu" else p.numel()
        for images, classes, rows in _blocks(p.shape, most):
            q, y = p[images, classes], product[images, classes, rows]
            _multiply(y, q, weights.offsets, maps[images], rows)
            inside[images, classes] += (q[:, :, rows] * y).sum((2, 3))
            total[images, classes] += (q[:, :, rows] * degree[images, :, rows]).sum((2, 3))
        if pooled:
            inside, total = inside.sum(0, keepdim=True), total.sum(0, keepdim=True)
        ratio, scale = _ratios(inside, total)  # (B, K), or (1, K) of pooled images
        if slope:  # -(2 y_k D_k - N_k d) / D_k^2, in place of Y
            product.mul_(-2 * scale[:, :, None, None])
            share = (ratio * scale)[:, :, None, None].expand(len(p), -1, -1, -1)
            for image, d, r in zip(product, degree, share, strict=True):
                image.addcmul_(d, r)
            ctx.save_for_backward(product)
        ctx.dtype, ctx.pooled = probabilities.dtype, pooled
        return (1 - ratio).sum(1).expand(len(p))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None, None]:
        (slopes,) = ctx.saved_tensors
        upstream = upstream.sum(0, keepdim=True) if ctx.pooled else upstream
        return (upstream[:, None, None, None] * slopes).to(ctx.dtype), None, None, None


def hard_ncut(labels: Tensor, weights: Weights, *, K: int) -> Tensor:
    """Compute the normalised cut of labels: `soft_ncut` of probabilities that are 0 or 1.

    Args:
        labels: int64 (B, H, W), 0..K-1.
        weights: of the same images.
        K: number of classes; one that is nowhere adds 1.

    Returns:
        Floating (B,) of the weights' type, 0..K.

    Raises:
        UsageError: labels of another shape or outside 0..K-1.
    """
    if labels.shape != weights.degree.shape:
        expected, found = tuple(weights.degree.shape), tuple(labels.shape)
        raise UsageError(f"Expected labels {expected}, found {found}.")
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= K:
        raise UsageError(f"Expected labels 0..{K - 1}, found {low}..{high}.")
    bound = torch.ones_like(weights.degree)  # weights of a pixel with its own class
    for i, offset in enumerate(weights.offsets):
        first, second = _pair(offset, *labels.shape[1:])
        same = labels[first] == labels[second]
        bound[first] += 2 * weights.maps[:, i][first] * same  # either pixel's, noted at one
    members = [labels == k for k in range(K)]
    inside, total = (
        torch.stack([(values * member).sum((1, 2)) for member in members], 1)
        for values in (bound, weights.degree)
    )
    return (1 - _ratios(inside, total)[0]).sum(1)


def _ratios(inside: Tensor, total: Tensor) -> tuple[Tensor, Tensor]:
    """Return inside / total and 1 / total, both 0 where the total is."""
    found = total > torch.finfo(total.dtype).tiny
    scale = torch.where(found, 1 / torch.where(found, total, 1), 0)
    return inside * scale, scale


def _pair(offset: Offset, H: int, W: int) -> tuple[Place, Place]:
    """Return where the pixels lie that have a neighbour at an offset, and where that lies."""
    down, right = offset
    rows, columns = slice(0, max(0, H - down)), slice(max(0, -right), max(0, W - max(0, right)))
    there = slice(max(0, right), max(0, W + min(0, right)))
    return (..., rows, columns), (..., slice(down, H), there)


def _blocks(shape: torch.Size, most: int) -> Iterator[tuple[slice, slice, slice]]:
    """Cut images, classes and rows so that a block has about `most` values."""
    B, K, H, W = shape
    images = B if shape.numel() <= most else 1
    rows = min(H, max(ROWS, most // (images * K * W)))
    classes = min(K, max(1, most // (images * rows * W)))
    for b in range(0, B, images):
        for k in range(0, K, classes):
            for top in range(0, H, rows):
                yield slice(b, b + images), slice(k, k + classes), slice(top, min(H, top + rows))


def _multiply(y: Tensor, p: Tensor, offsets: tuple[Offset, ...], maps: Tensor, rows: slice) -> None:
    """Write the rows of W P into y (b, k, n rows, W), from all rows of p (b, k, H, W)."""
    H, W = p.shape[2:]
    top, end = rows.start, rows.stop
    y.copy_(p[:, :, rows])  # the weight of a pixel with itself is 1
    for i, offset in enumerate(offsets):
        down = offset[0]
        (*_, first), (*_, second) = _pair(offset, H, W)
        weight = maps[:, i, None]  # (b, 1, H, W)
        last = min(end, H - down)  # below it, neighbours are off the image
        if top < last and first.start < first.stop:
            mine, other = slice(top, last), slice(top + down, last + down)
            y[:, :, : last - top, first].addcmul_(weight[:, :, mine, first], p[:, :, other, second])
        start = max(top, down)
        if start < end and first.start < first.stop:
            other = slice(start - down, end - down)
            y[:, :, start - top :, second].addcmul_(
                weight[:, :, other, first], p[:, :, other, first]
            )
