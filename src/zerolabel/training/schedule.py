"""Values that change over a run, each a function of the step alone, so that a run can resume."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Cosine:
    """A linear warm-up from `start`, then half a cosine from `peak` to `end`.

    Attributes:
        peak: value after the warm-up.
        end: value at the last step.
        warmup: steps of the warm-up.
        start: value at step 0 if there is a warm-up.
    """

    peak: float
    end: float
    warmup: int = 0
    start: float = 0.0

    def at(self, step: int, total: int) -> float:
        """The value at a step out of `total`; beyond the last it stays."""
        if step < self.warmup:
            return self.start + (self.peak - self.start) * step / self.warmup
        done = min(1.0, (step - self.warmup) / max(1, total - 1 - self.warmup))
        return self.end + (self.peak - self.end) * (1 + math.cos(math.pi * done)) / 2


@dataclass(frozen=True)
class Ramp:
    """A straight line from `start` to `end` over the first share of the run."""

    start: float
    end: float
    share: float

    def at(self, step: int, total: int) -> float:
        """The value at a step out of `total`."""
        steps = self.share * total
        done = min(1.0, step / steps) if steps else 1.0
        return self.start + (self.end - self.start) * done
