"""Cross-entropy of scores on a patch grid against labels of pixels, a strip of rows at a time.

Plainly, scores are first upsampled to all pixels, and their logarithms, their softmax and the
gradients of both are kept beside them: 150 classes on four crops of 512 pixels are 630 MB, each
time. But upsampling is one small matrix per axis, and the gradient of cross-entropy is known as
soon as its value is, so a strip can be upsampled, judged, pulled back to the patches and forgotten.
Shapes: `B` images, `K` classes, `h w` patch grid, `H W` pixels, `n` rows of a strip, `g` rows of
patches that it needs.

Source: the loss is that of Strudel et al., "Segmenter: Transformer for semantic segmentation",
ICCV 2021: bilinear upsampling, then cross-entropy at every pixel.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from zerolabel.errors import UsageError
from zerolabel.types import IGNORE

ELEMENTS = 1 << 21  # of a strip of upsampled scores: 8 MB, which stay near the cores
SHOWN = 8  # labels in an error


def upsampled_cross_entropy(
    logits: Tensor,
    labels: Tensor,
    *,
    ignore: int = IGNORE,
    cover: tuple[int, int] | None = None,
    strip: int = ELEMENTS,
) -> Tensor:
    """Compute the mean cross-entropy of the pixels that have a label.

    Equal to bilinear interpolation of the scores to `cover`, cut to the labels, and cross-entropy,
    but for rounding; and 0, with no gradient, where no pixel has a label. The gradient is computed
    with the value, if the scores need one; everything is in float32 or float64, under autocast too.

    Args:
        logits: finite scores, float (B, K, h, w).
        labels: uint8 or int64 (B, H, W), 0..K-1 or `ignore`.
        ignore: the label of pixels that do not count.
        cover: pixels (height, width) that the patch grid covers, more than the labels have if the
            image was padded at the bottom and right to whole patches; (H, W) by default.
        strip: most values at once, K x rows x W; one row is the least. Larger ones suit a GPU.

    Returns:
        float32 or, from float64, float64, a scalar. It can be differentiated once.

    Raises:
        UsageError: shapes that do not fit together, or labels that have no score.
    """
    _check_shapes(logits, labels, cover)
    cover, labels = cover or (labels.shape[1], labels.shape[2]), labels.long()
    _check_values(labels, logits.shape[1], ignore)
    slope = logits.requires_grad and torch.is_grad_enabled()
    loss: Tensor = _Strips.apply(  # type: ignore[no-untyped-call]
        logits, labels, ignore, cover, strip, slope
    )
    return loss


class _Strips(torch.autograd.Function):
    """Value and gradient in one pass over the pixels; backward only scales."""

    @staticmethod
    def forward(
        ctx: Any,
        logits: Tensor,
        labels: Tensor,
        ignore: int,
        cover: tuple[int, int],
        strip: int,
        slope: bool,
    ) -> Tensor:
        with torch.autocast(logits.device.type, enabled=False):
            x = logits.to(torch.promote_types(logits.dtype, torch.float32))
            loss, gradient = _sweep(x, labels, ignore, cover, strip, slope=slope)
        ctx.dtype = logits.dtype
        ctx.save_for_backward(gradient)
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None, None, None, None]:
        (gradient,) = ctx.saved_tensors
        return (upstream * gradient).to(ctx.dtype), None, None, None, None, None


def _sweep(
    x: Tensor, labels: Tensor, ignore: int, cover: tuple[int, int], strip: int, *, slope: bool
) -> tuple[Tensor, Tensor | None]:
    """Return the loss and its gradient (B, K, h, w), None if that is not asked for."""
    H, W = labels.shape[1:]
    down, across = (_upsampling(*axis) for axis in zip(x.shape[2:], cover, (H, W), strict=True))
    across = across.to(x)
    grid = x.transpose(1, 2).contiguous()  # (B, h, K, w)
    slopes = torch.zeros_like(grid) if slope else None
    losses = [x.new_zeros(())]
    height = max(1, strip // (x.shape[1] * W))
    for top in range(0, H, height):
        rows = slice(top, top + height)
        used = down[rows].any(0).nonzero()
        cells = slice(int(used[0]), int(used[-1]) + 1)
        mine = down[rows, cells].to(x)  # (n, g)
        for b in range(len(x)):
            wide = (grid[b, cells] @ across.T).flatten(1)  # (g, K * W)
            scores = (mine @ wide).reshape(len(mine), -1, W)  # (n, K, W)
            losses.append(_judge(scores, labels[b, rows], ignore, slope=slope))
            if slopes is not None:
                pulled = (mine.T @ scores.flatten(1)).reshape(-1, x.shape[1], W)  # (g, K, W)
                slopes[b, cells] += pulled @ across
    counted = (labels != ignore).sum().clamp_min(1)
    loss = torch.stack(losses).sum() / counted
    return loss, None if slopes is None else slopes.transpose(1, 2) / counted


def _judge(scores: Tensor, labels: Tensor, ignore: int, *, slope: bool) -> Tensor:
    """Add up the cross-entropy of scores (n, K, W) against labels (n, W).

    The scores are overwritten, if a slope is asked for with the gradient of that sum.
    """
    counts = labels != ignore
    wanted = torch.where(counts, labels, 0)[:, None]  # (n, 1, W)
    best = scores.amax(1)
    reached = scores.gather(1, wanted)[:, 0] - best
    powers = scores.sub_(best[:, None]).exp_()
    total = powers.sum(1)
    loss = torch.where(counts, total.log() - reached, 0).sum()
    if slope:  # softmax minus one-hot
        powers.mul_((counts / total)[:, None])
        powers.scatter_add_(1, wanted, -counts[:, None].to(powers.dtype))
    return loss


def _upsampling(cells: int, cover: int, size: int) -> Tensor:
    """Return the weights, float64 (size, cells), of each cell in the first pixels of `cover`.

    Bilinear as torch has it: centres at halves, and the outermost cells continue to the edge.
    """
    at = (torch.arange(size, dtype=torch.float64) + 0.5) * (cells / cover) - 0.5
    at = at.clamp(0, cells - 1)
    low, one = at.long(), torch.eye(cells, dtype=torch.float64)
    return torch.lerp(one[low], one[(low + 1).clamp_max(cells - 1)], (at - low)[:, None])


def _check_shapes(logits: Tensor, labels: Tensor, cover: tuple[int, int] | None) -> None:
    if logits.ndim != 4 or labels.ndim != 3 or len(logits) != len(labels):
        raise UsageError(
            f"Expected scores (B, K, h, w) and labels (B, H, W), found {tuple(logits.shape)} and "
            f"{tuple(labels.shape)}."
        )
    if not logits.is_floating_point() or labels.is_floating_point():
        found = f"{logits.dtype} and {labels.dtype}"
        raise UsageError(f"Expected floating scores and integer labels, found {found}.")
    if cover and (cover[0] < labels.shape[1] or cover[1] < labels.shape[2]):
        size = tuple(labels.shape[1:])
        raise UsageError(f"Labels of {size} reach beyond the pixels of the patches, {cover}.")


def _check_values(labels: Tensor, classes: int, ignore: int) -> None:
    wrong = ((labels < 0) | (labels >= classes)) & (labels != ignore)
    if not bool(wrong.any()):
        return
    values = torch.unique(labels[wrong]).tolist()
    more = " and more" if len(values) > SHOWN else ""
    raise UsageError(
        f"Expected labels 0..{classes - 1}, or {ignore} for pixels that do not count; found "
        f"{', '.join(map(str, values[:SHOWN]))}{more}. Give the decoder as many classes as the "
        "labels have, or set the ignored label."
    )
