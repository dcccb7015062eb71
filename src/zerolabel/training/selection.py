"""A bootstrapping that keeps the weights that were judged best, as TransFGU's published code does.

Source: Yin et al., "TransFGU", ECCV 2022, the published code: it keeps the epoch whose mean IoU
plus pixel accuracy is highest on labelled images. That is a choice by labels; the paper does not
tell of it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from zerolabel.networks.students import Student
from zerolabel.store import below
from zerolabel.training.bootstrap import Bootstrapping, BootstrapTrainer


class SelectingTrainer(BootstrapTrainer):
    """A trainer that is told how good its student is.

    Attributes:
        best: the student's weights when it was best; empty before the first judgement.
        score: how good it was then.
        chosen: the step at which it was.
    """

    def __init__(self, student: Student, config: Bootstrapping, *, length: int) -> None:
        super().__init__(student, config, length=length)
        self.best: dict[str, Tensor] = {}
        self.score, self.chosen = -math.inf, 0

    def judge(self, score: float) -> None:
        """Keep the student's weights if no score before was as high."""
        if score > self.score:
            self.best = {k: v.detach().clone() for k, v in self.student.state_dict().items()}
            self.score, self.chosen = score, self.step

    def state(self) -> dict[str, Tensor]:
        """See `BootstrapTrainer.state`."""
        kept = {f"best/{name}": value for name, value in self.best.items()}
        kept["score"] = torch.tensor(self.score, dtype=torch.float64)
        return super().state() | kept | {"chosen": torch.tensor(self.chosen)}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """See `BootstrapTrainer.restore`."""
        super().restore(state)
        self.best = below(state, "best/")
        self.score, self.chosen = float(state["score"]), int(state["chosen"])
