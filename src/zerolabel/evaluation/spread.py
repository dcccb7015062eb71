"""Mean and deviation of a score over seeds, the same wherever seeds are put together."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import mean, stdev
from typing import Any


@dataclass(frozen=True)
class Spread:
    """Mean and sample standard deviation over n seeds; None where there is one seed."""

    mean: float
    std: float | None
    n: int

    def words(self, between: str = "±") -> str:
        """Write it in percent."""
        deviation = "" if self.std is None else f" {between} {100 * self.std:.1f}"
        return f"{100 * self.mean:4.1f}{deviation}"


def spread(values: Sequence[float]) -> Spread:
    """Mean and sample standard deviation (n - 1) of one value or more."""
    return Spread(mean(values), stdev(values) if len(values) > 1 else None, len(values))


def per_seed(values: Iterable[float]) -> dict[str, Any] | None:
    """Turn the values of all seeds into JSON; None if one of them is NaN."""
    listed = [float(value) for value in values]
    if any(map(math.isnan, listed)):
        return None
    found = spread(listed)
    return {"mean": found.mean, "std": found.std, "per_seed": listed}
