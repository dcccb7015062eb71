"""A fully connected conditional random field over the pixels of a photo, by mean field.

Pixels that are near, or near and of one colour, pull each other to the same label. Written from
P. Krähenbühl and V. Koltun, "Efficient inference in fully connected CRFs with Gaussian edge
potentials", NIPS 2011. Shapes: `K` labels, `H W` pixels, `N = H*W`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from zerolabel.errors import UsageError
from zerolabel.ops.permutohedral import lattice, normalised
from zerolabel.ops.threads import threads_for

Kernel = Callable[[Tensor], Tensor]  # float (N, K) -> (N, K), weighted sums over pixels


@dataclass(frozen=True, kw_only=True)
class CRF:
    """Settings; the defaults are those of published work on unsupervised segmentation.

    Attributes:
        near: standard deviation in pixels of the kernel that sees positions only.
        near_weight: what it counts.
        wide: standard deviation in pixels of the kernel that sees positions and colours.
        colour: its standard deviation in grey levels, the same for the three channels, so that
            their order (RGB or BGR) does not matter to the kernel.
        wide_weight: what it counts.
        iterations: of the mean field.
        exact: images of at most this many pixels have kernels that are matrices of all pairs;
            larger ones have lattices, which approximate them in linear time.
    """

    near: float = 1.0
    near_weight: float = 3.0
    wide: float = 67.0
    colour: float = 3.0
    wide_weight: float = 4.0
    iterations: int = 10
    exact: int = 32 * 32

    def __post_init__(self) -> None:
        for name in ("near", "wide", "colour"):
            value = getattr(self, name)
            if not value > 0:
                raise UsageError(f"{name} is a standard deviation and above 0, found {value}.")


FIELD = CRF()


@torch.no_grad()
def crf(log_probabilities: Tensor, image: Tensor, settings: CRF = FIELD) -> Tensor:
    """Let the pixels of a photo agree on labels.

    The mean field of algorithm 1 with Potts compatibility. As in pydensecrf, which published
    numbers come from, kernels are normalised symmetrically to D^-1/2 K D^-1/2, where D holds the
    row sums of K, and a pixel's own probability takes part in its sum.

    Args:
        log_probabilities: float32 or float64 (K, H, W), up to a constant per pixel.
        image: uint8 (3, H, W), on the same device.
        settings: kernels and iterations.

    Returns:
        Probabilities (K, H, W) of the same type.

    Raises:
        UsageError: the sizes differ, or the kernels are too narrow for the image.
    """
    K, H, W = log_probabilities.shape
    if image.shape != (3, H, W):
        raise UsageError(f"Expected a photo of shape (3, {H}, {W}), found {tuple(image.shape)}.")
    start = log_probabilities.reshape(K, -1).T.contiguous()  # (N, K)
    if settings.exact >= H * W:
        start = start.double()  # a pixel between two labels magnifies errors in every iteration
    with threads_for(6 * start.numel()):  # every pixel lies between six corners
        near, wide = _kernels(image, settings, start.dtype)
        found = start.softmax(1)
        for _ in range(settings.iterations):
            pull = near(found).mul_(settings.near_weight)
            pull.add_(wide(found), alpha=settings.wide_weight)
            found = pull.add_(start).softmax(1)
    return found.T.reshape(K, H, W).to(log_probabilities.dtype)


def _kernels(image: Tensor, settings: CRF, dtype: torch.dtype) -> list[Kernel]:
    """The two normalised kernels, of positions and of positions and colours."""
    _, H, W = image.shape
    rows, cols = (torch.arange(n, dtype=dtype, device=image.device) for n in (H, W))
    # The axes of a lattice are not alike, so x, y, R, G, B stand in the order of pydensecrf.
    at = torch.cartesian_prod(rows, cols).flip(1)  # (N, 2)
    colours = image.reshape(3, -1).T.to(dtype)
    points = at / settings.near, torch.cat([at / settings.wide, colours / settings.colour], 1)
    if settings.exact >= H * W:
        return [_all_pairs(p) for p in points]
    return [normalised(lattice(p)) for p in points]


def _all_pairs(points: Tensor) -> Kernel:
    """A Gaussian of standard deviation 1 between all pairs of points, normalised."""
    differences = torch.cdist(points, points, compute_mode="donot_use_mm_for_euclid_dist")
    kernel = (-0.5 * differences.square()).exp()  # (N, N)
    scale = kernel.sum(1).rsqrt()
    return (scale[:, None] * kernel * scale).matmul
