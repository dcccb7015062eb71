"""Principal components of patch tokens as colours, the same in every image, on the foreground only.

One fit serves an image, a folder or a clip, in one pass and bounded memory. Every sign is fixed by
a rule, so that nothing flips from run to run or from frame to frame.

Shapes: `B` images, `h w` patch grid, `D` channels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from zerolabel.errors import UsageError
from zerolabel.ops.cluster import principal_axes
from zerolabel.ops.threads import threads_for

SAMPLE = 16_384  # tokens kept for the threshold, the colours and their range
ENDS = (0.01, 0.99)  # quantiles that get the first and the last shade of a colour
FAINT = 0.1  # standard deviations by which attention must prefer a side to decide on it
BINS = 256  # of the histogram that is split


@dataclass(frozen=True)
class Pca:
    """What turns tokens into colours.

    Attributes:
        mean: float32 (D,), of all tokens.
        axis: float32 (D,), the first principal axis, pointing to the foreground.
        threshold: a token is foreground if its coordinate on `axis` is above; -inf for all.
        centre: float32 (D,), mean of the foreground.
        axes: float32 (D, components), orthonormal, those of the foreground.
        low: float32 (components,), the coordinate that becomes 0.
        high: float32 (components,), the coordinate that becomes 1.
    """

    mean: Tensor
    axis: Tensor
    threshold: float
    centre: Tensor
    axes: Tensor
    low: Tensor
    high: Tensor

    def maps(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Colour tokens.

        Args:
            tokens: float32 (..., h, w, D).

        Returns:
            float32 (..., h, w, components) in 0..1, and bool (..., h, w), the foreground; the
            colours of the background mean nothing.
        """
        tokens = tokens.detach().cpu().float()
        inside = (tokens - self.mean) @ self.axis > self.threshold
        span = self.high - self.low
        at = ((tokens - self.centre) @ self.axes - self.low) / span.clamp_min(1e-12)
        return torch.where(span > 0, at, 0.5).clamp(0, 1), inside


class PcaFit:
    """Gathers what a `Pca` needs, batch by batch: exact covariance, and a uniform sample."""

    def __init__(self, *, seed: int = 0) -> None:
        """Start with nothing.

        Args:
            seed: of the draw of the sample, which takes all of up to 16,384 tokens.
        """
        self._generator = torch.Generator().manual_seed(seed)
        self._count = self._images = 0
        self._sum = self._products = self._looked = self._border = torch.zeros(())
        self._sample, self._keys = torch.zeros(0), torch.zeros(0)

    def add(self, tokens: Tensor, attention: Tensor | None = None) -> None:
        """Take in a batch.

        Args:
            tokens: float32 (B, h, w, D).
            attention: float32 (B, heads, h, w) from CLS, or None. It says on which side of the mean
                the foreground lies; where it says nothing, that is the side away from the border.
        """
        x = tokens.detach().cpu().float()
        flat = x.flatten(0, 2)  # (B*h*w, D)
        exact = flat.double()
        self._count += len(flat)
        self._sum = self._sum + exact.sum(0)
        with threads_for(exact.numel() * exact.shape[1]):
            self._products = self._products + exact.T @ exact
        self._images += len(x)
        self._border = self._border - _shift(x, _edge(x))
        if attention is not None:
            self._looked = self._looked + _shift(x, attention.detach().cpu().mean(1))
        # The smallest of independent random keys: a uniform sample without knowing the number.
        keys = torch.cat([self._keys, torch.rand(len(flat), generator=self._generator)])
        rows = torch.cat([self._sample.reshape(-1, flat.shape[1]), flat])
        chosen = keys.topk(min(SAMPLE, len(keys)), largest=False).indices.sort().values
        self._keys, self._sample = keys[chosen], rows[chosen]

    def finish(self, *, components: int = 3, foreground: bool = True) -> Pca:
        """Fix the axes, their signs, the foreground and the range of every colour.

        The first axis of all tokens is split at Otsu's threshold; the colours are the first
        components of the tokens on its foreground side. With `foreground` off they are those of
        all tokens.

        Args:
            components: colours wanted, at most D.
            foreground: whether the background is left out.

        Returns:
            The map from tokens to colours.

        Raises:
            UsageError: there are no tokens, or fewer channels than components.
        """
        channels = self._sample.shape[-1] if self._count else 0
        if components > channels:
            raise UsageError(f"{components} components need as many channels, found {channels}.")
        mean = self._sum / self._count
        covariance = self._products / self._count - mean[:, None] * mean
        variances, axes = torch.linalg.eigh(covariance)
        axes = signed(axes.flip(1)[:, :components])  # by falling variance
        spread = float(variances[-1].clamp_min(0).sqrt()) * self._images
        shifts = [float((shift * axes[:, 0]).sum()) for shift in (self._looked, self._border)]
        if shifts[0 if abs(shifts[0]) > FAINT * spread else 1] < 0:
            axes[:, 0] *= -1
        mean, axes = mean.float(), axes.float()
        first, centre, threshold, inside = axes[:, 0], mean, float("-inf"), self._sample
        if foreground:
            scores = (self._sample - mean) @ first
            threshold = otsu(scores.numpy())
            if bool((scores > threshold).any()):  # all tokens alike have no foreground
                inside = self._sample[scores > threshold]
            centre, axes = principal_axes(inside, components)
            axes = signed(axes)
        low, high = torch.quantile((inside - centre) @ axes, torch.tensor(ENDS), dim=0)
        return Pca(mean, first, threshold, centre, axes, low, high)


def pca_maps(
    tokens: Tensor,
    attention: Tensor | None = None,
    *,
    components: int = 3,
    foreground: bool = True,
) -> tuple[Tensor, Tensor]:
    """Colour the tokens of a batch by their own principal components.

    Args:
        tokens: float32 (B, h, w, D).
        attention: float32 (B, heads, h, w) or None, see `PcaFit.add`.
        components: colours wanted.
        foreground: whether the background is left out.

    Returns:
        See `Pca.maps`.
    """
    fit = PcaFit()
    fit.add(tokens, attention)
    return fit.finish(components=components, foreground=foreground).maps(tokens)


def signed(axes: Tensor) -> Tensor:
    """Turn every axis so that its largest entry is positive; an axis has no sign of its own.

    Args:
        axes: float (D, count).

    Returns:
        The same axes, some negated.
    """
    largest = axes.gather(0, axes.abs().argmax(0, keepdim=True))  # (1, count)
    return torch.where(largest < 0, -axes, axes)


def otsu(values: NDArray[np.floating]) -> float:
    """Split values in two so that the variance between the parts is largest.

    Args:
        values: float (N,), at least one.

    Returns:
        The threshold, an edge of one of 256 bins between the extremes, and the middle one where
        nothing lies between the parts; what is above is the upper part. Equal values have none.

    Source: Otsu, "A threshold selection method from gray-level histograms", 1979, eq. 18.
    """
    low, high = float(values.min()), float(values.max())
    if low == high:
        return high
    counts, edges = np.histogram(values, BINS, range=(low, high))
    centres = (edges[:-1] + edges[1:]) / 2
    below, sums = np.cumsum(counts)[:-1], np.cumsum(counts * centres)[:-1]
    above, total = counts.sum() - below, (counts * centres).sum()
    gap = (total - sums) / np.maximum(above, 1) - sums / np.maximum(below, 1)
    between = below * above * gap**2
    best = np.flatnonzero(between == between.max())  # every edge in an empty gap
    return float(edges[1:-1][best[len(best) // 2]])


def _shift(x: Tensor, weight: Tensor) -> Tensor:
    """Weighted mean minus mean of the tokens of each image, summed over images.

    Args:
        x: float32 (B, h, w, D).
        weight: float32 (B, h, w), 0 or more.

    Returns:
        float64 (D,).
    """
    flat = weight.flatten(1).double()  # (B, h*w)
    flat = flat / flat.sum(1, keepdim=True).clamp_min(1e-30)
    return ((flat[..., None] - 1 / flat.shape[1]) * x.flatten(1, 2)).sum((0, 1))


def _edge(x: Tensor) -> Tensor:
    """Mark the outermost patches of (B, h, w, D) with 1, the others with 0: (B, h, w)."""
    marks = torch.ones(x.shape[:3])
    marks[:, 1:-1, 1:-1] = 0
    return marks
