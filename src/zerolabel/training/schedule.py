"""Values that change over a run, so that a run can resume: each a function of the step alone.

But for `Plateau`, which looks at the loss and says what it needs to go on.
"""

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


@dataclass(frozen=True)
class Poly:
    """A power of the share of the run that is left, from `start` to `end`.

    Attributes:
        start: value at step 0, after the warm-up if there is one.
        end: value after the last step.
        power: 1 is a straight line.
        warmup: steps over which the value rises linearly to the curve, which starts at step 0.

    Source:
        Segmenter's published code: power 0.9 down to 1e-5, no warm-up.
    """

    start: float
    end: float = 1e-5
    power: float = 0.9
    warmup: int = 0

    def at(self, step: int, total: int) -> float:
        """The value at a step out of `total`; beyond the last it stays."""
        left = max(0.0, 1 - step / max(1, total))
        rise = min(1.0, (step + 1) / (self.warmup + 1))
        low = min(self.end, self.start)  # so that no value rises in the end
        value: float = low + (self.start - low) * left**self.power
        return value * rise


@dataclass
class Plateau:
    """A tenth of the value whenever a loss has not fallen for a while; torch's rule and defaults.

    Attributes:
        factor: of the value at each fall.
        patience: losses without a new best that are borne; the next one makes the value fall.
        threshold: a loss is a new best below (1 - threshold) times the best.
        best: the lowest loss so far.
        bad: losses since then.
        scale: what the starting value is multiplied with.
    """

    factor: float = 0.1
    patience: int = 10
    threshold: float = 1e-4
    best: float = math.inf
    bad: int = 0
    scale: float = 1.0

    def see(self, loss: float) -> None:
        """Take note of the loss of an epoch."""
        if loss < self.best * (1 - self.threshold):
            self.best, self.bad = loss, 0
        else:
            self.bad += 1
        if self.bad > self.patience:
            self.scale, self.bad = self.scale * self.factor, 0
