"""MaskCLIP+: what MaskCLIP says, taught to a network for segmentation (Zhou et al., ECCV 2022).

The student's classifier are the fixed texts of the words; all it learns is to give vectors that
lie near the word that MaskCLIP says.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from zerolabel.backbones import Backbone
from zerolabel.data.words import Words
from zerolabel.errors import UsageError
from zerolabel.methods.taught import TaughtConfig, TaughtMethod, wants_student
from zerolabel.stages.views import readable
from zerolabel.store import Store
from zerolabel.types import Sample


@dataclass(frozen=True, kw_only=True)
class Config(TaughtConfig):
    """Settings; see `TaughtConfig`."""

    student: str = "resnet-18"
    head: str = "query"
    feature: float = 0.0
    text: float = 0.0


PROTOCOL = Config(refine="bilinear")
# The published lengths count steps of 4 GPUs with 4 squares each; here a step has all 16.
PUBLISHED = replace(
    PROTOCOL,
    short=512,
    crop=512,
    views=0,
    batch=16,
    student="resnet-50",
    student_steps=4000,
    student_relu=True,
)
PRESETS = {
    "default": Config(),
    "protocol": PROTOCOL,
    "legacy_mmseg": replace(PROTOCOL, legacy=True),
    "voc": replace(PUBLISHED, classes="voc20", student_steps=2000),
    "context": replace(PUBLISHED, classes="context59", short=520, crop=480),
    "ade20k": replace(PUBLISHED, classes="ade150", student_steps=8000),
    "cityscapes": replace(PUBLISHED, classes="cityscapes19"),
    "coco27": replace(PUBLISHED, classes="coco27", student_steps=8000),
}


class MaskClipPlus(TaughtMethod):
    """A student of MaskCLIP."""

    name = "maskclip+"
    PRESETS = PRESETS
    config: Config
    unit = False
    falls = 1

    def __init__(self, config: Config, backbone: Backbone) -> None:
        if not wants_student(config):
            raise UsageError("maskclip+ is a student: name one, or use maskclip without.")
        if config.head not in ("query", "own"):
            raise UsageError(
                f"maskclip+ has no bias to inherit: head query or own, got {config.head}."
            )
        super().__init__(config, backbone)

    def learn(self, samples: Sequence[Sample], words: Words, *, store: Store) -> None:
        """See `WordMethod.learn`."""
        self.teach(readable(samples, store=store), store=store)
