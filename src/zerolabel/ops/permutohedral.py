"""Gaussian filtering in many dimensions on the permutohedral lattice.

Values are given to the corners of the simplex that their point lies in (splat), mixed with those of
neighbouring corners along every axis (blur), and read back (slice): linear in the number of points,
where the sum over all pairs is quadratic. Written from A. Adams, J. Baek and M. A. Davis, "Fast
high-dimensional filtering using the permutohedral lattice", Eurographics 2010.

Each of the three steps is a set of weighted sums of rows, which torch has one fast kernel for on
every device. Shapes: `N` points, `d` dimensions, `M` corners in use, `L` channels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from zerolabel.errors import UsageError

# Channels are filtered in parts of this many bytes. Arrays of more than 32 MB are new memory from
# the system every time, which costs several times the arithmetic.
MOST = 3 << 23


@dataclass(frozen=True)
class Sums:
    """Weighted sums of rows: a sparse matrix, kept row by row.

    Attributes:
        index: int32 (rows, n), or (entries,) with `starts`; rows of the values that are summed.
        weights: of the same shape.
        starts: int32 (rows,), where each row begins if they differ in length; else None.
    """

    index: Tensor
    weights: Tensor
    starts: Tensor | None = None

    def __call__(self, values: Tensor) -> Tensor:
        """Multiply: float (n, L) -> (rows, L)."""
        return F.embedding_bag(
            self.index, values, self.starts, per_sample_weights=self.weights, mode="sum"
        )


@dataclass(frozen=True)
class Lattice:
    """A Gaussian filter over fixed points, as three kinds of weighted sums.

    Attributes:
        splat: from N points to M corners.
        blur: from M corners to M corners, once per axis of the lattice.
        read: from M corners back to N points.
    """

    splat: Sums
    blur: tuple[Sums, ...]
    read: Sums

    def __call__(self, values: Tensor) -> Tensor:
        """Filter: float (N, L) -> (N, L), sum_j exp(-|f_i - f_j|^2 / 2) v_j up to a factor."""
        out = torch.empty_like(values)
        corners = len(self.blur[0].index)
        width = max(1, MOST // (corners * values.element_size()))
        for start in range(0, values.shape[1], width):
            part = slice(start, start + width)
            at_corners = self.splat(values[:, part].contiguous())
            for axis in self.blur:
                at_corners = axis(at_corners)
            out[:, part] = self.read(at_corners)
        return out


def lattice(features: Tensor) -> Lattice:
    """Build the filter for a set of points.

    Args:
        features: float (N, d), coordinates in units of the kernel's standard deviation.

    Returns:
        The filter. Its kernel is close to a Gaussian of standard deviation 1, up to one factor
        that cancels where the result is divided by that of ones; see `normalised`.

    Raises:
        UsageError: the points lie so far apart that corners cannot be numbered.
    """
    N, d = features.shape
    corner, rank, shares = _simplices(features)
    # Corners lie within d of the first ones, and steps to their neighbours change at most d more.
    low = corner.amin(0) - 2 * d
    spans = [int(span) for span in (corner.amax(0) + 2 * d - low + 1)[:d]]
    if math.prod(spans) >= 2**62:
        raise UsageError(
            f"The points of a Gaussian filter span {' x '.join(map(str, spans))} cells, more than "
            "can be numbered. Choose larger standard deviations."
        )
    # The last coordinate follows from the others, since they sum to 0.
    place = torch.tensor([math.prod(spans[i + 1 :]) for i in range(d)] + [0], device=corner.device)
    first = ((corner - low) * place).sum(1)
    corners = torch.stack(  # (N, d+1), corner k is k further, or k - (d+1) in the last k ranks
        [first + ((k - (d + 1) * (rank > d - k)) * place).sum(1) for k in range(d + 1)], 1
    )
    numbers, order = corners.flatten().sort()
    new = torch.ones_like(numbers, dtype=torch.bool)
    new[1:] = numbers[1:] != numbers[:-1]
    group = (new.cumsum(0) - 1).int()
    used = numbers[new]
    inverse = torch.empty_like(group)
    inverse[order] = group
    return Lattice(
        Sums(_int(order // (d + 1)), shares.flatten()[order], _int(new.nonzero()[:, 0])),
        tuple(_axis(used, int(place.sum() - (d + 1) * place[j]), shares) for j in range(d + 1)),
        Sums(inverse.reshape(N, d + 1), shares),
    )


def normalised(filtering: Lattice) -> Lattice:
    """Fold the symmetric normalisation D^-1/2 K D^-1/2, D = diag(K 1), into a filter."""
    splat, out = filtering.splat, filtering.read
    ones = torch.ones(len(out.index), 1, dtype=out.weights.dtype, device=out.weights.device)
    scale = filtering(ones)[:, 0].rsqrt()  # (N,), every point gives something to itself
    return Lattice(
        replace(splat, weights=splat.weights * scale[splat.index]),
        filtering.blur,
        replace(out, weights=out.weights * scale[:, None]),
    )


def _simplices(features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Find the simplex that every point lies in, and its place in it.

    Returns:
        int64 (N, d+1), its corner of remainder 0; int64 (N, d+1), the rank of each coordinate's
        offset from that corner, 0 for the largest; float (N, d+1), barycentric coordinates.
    """
    N, d = features.shape
    # Rows are an orthogonal basis of the plane whose coordinates sum to 0. Splatting, blurring and
    # slicing spread by a standard deviation of (d+1) sqrt(2/3) in all, so that is the unit.
    basis = torch.zeros(d, d + 1, dtype=features.dtype, device=features.device)
    for i in range(d):
        basis[i, : i + 1] = 1
        basis[i, i + 1] = -(i + 1)
        basis[i] *= (d + 1) * math.sqrt(2 / 3) / math.sqrt((i + 1) * (i + 2))
    lifted = features @ basis  # (N, d+1)
    nearest = (lifted / (d + 1)).round()
    excess = nearest.sum(1, keepdim=True).long()  # 0 if the rounded point lies in the plane
    order = (lifted - nearest * (d + 1)).argsort(dim=1, descending=True)
    rank = torch.empty_like(order).scatter_(
        1, order, torch.arange(d + 1, device=order.device).expand(N, -1)
    )
    rank = rank + excess  # those pushed out of 0..d are the ones to round the other way
    nearest = nearest + (rank < 0).to(nearest) - (rank > d).to(nearest)
    rank = rank.remainder(d + 1)
    offset = lifted / (d + 1) - nearest
    sorted_ = torch.empty_like(offset).scatter_(1, rank, offset)  # descending
    steps = (sorted_[:, :-1] - sorted_[:, 1:]).flip(1)  # of corners 1..d
    shares = torch.cat([1 - steps.sum(1, keepdim=True), steps], 1)
    return (nearest * (d + 1)).long(), rank, shares


def _axis(used: Tensor, step: int, like: Tensor) -> Sums:
    """One pass of the blur: 1/2, 1, 1/2 over a corner and its two neighbours, where in use."""
    M = len(used)
    here = torch.arange(M, device=used.device)
    ahead = torch.searchsorted(used, used + step).clamp_max_(M - 1)
    found = used[ahead] == used + step
    before = torch.full((M + 1,), -1, device=used.device)
    before[torch.where(found, ahead, M)] = here  # who has none ahead writes to a row that is cut
    before = before[:M]
    # Where there is no neighbour, some corner is taken with weight 0.
    index = torch.stack([here, torch.where(found, ahead, here), before.clamp_min(0)], 1)
    weights = torch.stack([torch.ones_like(found), found, before >= 0], 1).to(like.dtype)
    weights[:, 1:] *= 0.5
    return Sums(_int(index), weights)


def _int(x: Tensor) -> Tensor:
    return x.to(torch.int32)
