"""What a mask says when it is refined, beside the student that has learned it.

The student has seen what all masks have in common, the mask has seen its own photo: where the one
is in doubt the other decides. Both are asked, as in bootstrapping (S. Reed et al., "Training deep
neural networks on noisy labels with bootstrapping", 2015, the soft kind: a convex combination of
what a network says and its label), there while a network learns, here when it has learned.

Shapes: `K` categories, `h w` grid of the student.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from zerolabel.errors import UsageError
from zerolabel.jobs.refining.initial import Initial
from zerolabel.methods.base import Evidence, surest
from zerolabel.ops.regions import patch_shares
from zerolabel.types import Sample


@dataclass(frozen=True)
class Votes:
    """Old masks that have a say.

    Attributes:
        initial: the run with them.
        ids: of the photos whose masks are asked.
        trust: weight of the old mask, 0..1; with 0 the student alone decides.
    """

    initial: Initial
    ids: frozenset[str]
    trust: float

    def __call__(self, sample: Sample, evidence: Evidence) -> Evidence:
        """Hear the old mask of a photo.

        Args:
            sample: the photo.
            evidence: of the student, whose scores are probabilities.

        Returns:
            (1 - trust) x its probabilities + trust x the share of a cell that the mask gives to
            each category; evidence as it was where there is no mask to hear.
        """
        if not self.trust or sample.id not in self.ids:
            return evidence
        K, h, w = evidence.scores.shape
        shares = torch.from_numpy(patch_shares(self.initial.label(sample.id), (h, w), K))
        scores = torch.lerp(evidence.scores, shares.to(evidence.scores.device), self.trust)
        return Evidence(scores, surest(scores))


def check_trust(trust: float) -> None:
    """Refuse what is no weight.

    Args:
        trust: from 0 to less than 1.

    Raises:
        UsageError: it is not.
    """
    if not 0 <= trust < 1:
        raise UsageError(
            "trust is the weight of the old masks beside the student: expected from 0 (the student "
            f"alone) to less than 1, found {trust:g}."
        )
