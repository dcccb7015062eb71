"""What methods share that teach a student what CLIP says of the photos.

Shapes: `B` squares, `h w` patch grid, `P` channels of the space shared with texts, `Q` words.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from zerolabel.backbones import Backbone
from zerolabel.errors import UsageError
from zerolabel.methods.built import Built
from zerolabel.methods.configs import pick
from zerolabel.methods.worded import WordConfig, WordMethod
from zerolabel.networks.bias import BiasConfig, Rectifier
from zerolabel.networks.distilled import BIASED, Distilled
from zerolabel.ops import prompting
from zerolabel.stages import distil
from zerolabel.stages.dense import Look, Seen
from zerolabel.stages.distil import NONE, Student
from zerolabel.stages.views import Library, Views
from zerolabel.store import Store
from zerolabel.training.distil import Distillation
from zerolabel.types import Sample


@dataclass(frozen=True, kw_only=True)
class TaughtConfig(WordConfig, Views, Student):
    """Settings that these methods share; see `stages.views` and `stages.distil` for theirs."""


class TaughtMethod(WordMethod):
    """A teacher out of CLIP, and where it is asked for a student that takes its place."""

    config: TaughtConfig
    unit: bool = True  # whether the student's head sees vectors of length 1
    falls: int = 0  # steps after which its learning rate falls again; 0 stands for an epoch

    def __init__(self, config: TaughtConfig, backbone: Backbone) -> None:
        super().__init__(config, backbone)
        if min(config.crop, config.short) < backbone.stride:
            raise UsageError(
                f"crop and short are {config.crop} and {config.short} pixels, but "
                f"{backbone.name} needs at least {backbone.stride}."
            )
        whole = config.crop - config.crop % backbone.stride
        self.config = replace(self.config, crop=whole)
        self._pupil = Built[Distilled]()

    def library(self, samples: Sequence[Sample], *, batch: int, store: Store) -> Library:
        """Squares of photos to learn from."""
        views: Views = pick(Views, self.config, batch=batch)
        return Library(self.backbone, samples, views, store=store)

    def taught(self) -> bool:
        """Whether a student has taken the teacher's place."""
        return any(name.startswith(distil.TAUGHT) for name in self.arrays)

    def teach(
        self,
        samples: Sequence[Sample],
        *,
        teacher: Rectifier | None = None,
        facts: Sequence[object] = (),
        store: Store,
    ) -> None:
        """Teach a student what the teacher says of squares of photos.

        Args:
            samples: photos that can be read.
            teacher: whose head it inherits; None without bias.
            facts: what the teacher depends on, besides the words.
            store: keeps the result.
        """
        c, arrays = self.config, self.arrays
        library = self.library(samples, batch=c.student_batch or c.batch, store=store)
        steps = c.student_epochs * library.epoch if c.student_epochs else c.student_steps
        more = {"iterations": steps, "epoch": self.falls or library.epoch, "lr": c.student_lr}
        more |= {"unit": self.unit, "ignore": -1, "batch": library.views.batch}
        training: Distillation = pick(Distillation, c, **more)
        weights, self.losses = distil.train(
            pick(Student, c),
            training,
            library,
            self._label,
            teacher=teacher,
            queries=arrays["queries"],
            references=arrays.get("references"),
            facts=(*facts, c.denoise, c.temperature),
            store=store,
        )
        self.arrays = arrays | weights
        if not c.student_weights:
            self.notes.append(
                f"the student {c.student} began with random weights; one that knows ImageNet "
                "learns more: --set student_weights=FILE"
            )

    def scores(self, dense: Tensor, positions: Tensor) -> Tensor:
        """What the teacher says: dense (B, h, w, P) and positions (h, w, D) -> (B, Q, h, w)."""
        unit = F.normalize(dense, dim=-1)
        return (unit @ self.arrays["queries"].to(unit.device).T).permute(0, 3, 1, 2)

    def photos(self, batch: Sequence[Sample], *, store: Store) -> tuple[list[Seen], dict[str, str]]:
        """See `WordMethod.photos`; a student sees them itself."""
        if not self.taught():
            return super().photos(batch, store=store)
        look: Look = pick(Look, self.config)
        return distil.photos(self.pupil(), self.backbone, batch, look)

    def logits(self, seen: Seen) -> Tensor:
        """See `WordMethod.logits`: what the student says, or else the teacher."""
        device = self.backbone.device
        dense = seen.dense[None].to(device)
        if not self.taught():
            grid = (dense.shape[1], dense.shape[2])
            with torch.no_grad():
                return self.scores(dense, self.backbone.positions(grid))[0].cpu()
        # Its grid is finer than CLIP's, which has as many patches as fit into the photo.
        pupil = self.pupil()
        scale = pupil.student.stride / self.backbone.stride
        grid = (max(1, round(dense.shape[1] * scale)), max(1, round(dense.shape[2] * scale)))
        with torch.no_grad():
            said: Tensor = pupil.head(dense, self.backbone.positions(grid))
        return said[0].cpu()

    def pupil(self) -> Distilled:
        """The student with the weights of the model, built once."""
        return self._pupil.get(self.arrays["head.queries"], self._build)

    def _build(self) -> Distilled:
        bias = self.inherited() if self.config.head in BIASED else None
        made = distil.rebuild(self.arrays, pick(Student, self.config), bias=bias, unit=self.unit)
        return made.to(self.backbone.device)

    def inherited(self) -> BiasConfig | None:
        """What the student's head inherits."""
        return None

    def _label(self, dense: Tensor, positions: Tensor) -> Tensor:
        """The words that the teacher gives to patches, int64 (B, h, w)."""
        c = self.config
        with torch.no_grad():
            logits = self.scores(dense, positions)
        if c.denoise:
            sure = partial(prompting.denoise, least=c.denoise, temperature=c.temperature)
            logits = torch.stack([prompting.fill(one, sure(one)) for one in logits])
        return logits.argmax(1)


def wants_student(config: TaughtConfig) -> bool:
    """Whether a student is asked for."""
    return config.student != NONE
