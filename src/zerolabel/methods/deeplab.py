"""Students of masks: DeepLabV3 (Chen et al., 2017), or a light network for processors.

The last step of DatUS2 and the verb refine: a network learns the masks that a method without labels
has found in many images, leaves out where they disagree, and fills in what they left open (255).
It is told nothing else: it is fitted on whatever masks `Sample.load_label` gives, drawn or found.
Shapes: `H W` pixels, `h w` grid of the student, `K` classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch.nn.functional as F
from torch import Tensor

from zerolabel.backbones import Backbone, pupils
from zerolabel.backbones.pupils import Pupil, Student
from zerolabel.errors import ImageError, UsageError, unknown_name
from zerolabel.methods.base import Anatomy, Evidence, Method, class_names, pick, surest
from zerolabel.stages import denoise, supervise
from zerolabel.store import Store
from zerolabel.training.lessons import Lessons
from zerolabel.training.precision import use_amp
from zerolabel.training.scenes import SceneConfig
from zerolabel.training.supervised import SupervisedTraining
from zerolabel.types import Sample

AMP = ("auto", "on", "off")
LABELS, STUDENT = "labels: ", "student: "  # how notes begin
GRID = 28  # cells a side of what `explain` compares, at most
SHOWN = 4  # classes that it draws


@dataclass(frozen=True, kw_only=True)
class Config(Student):
    """Settings; see `backbones.pupils` for `network`, `arch`, `output_stride` and `start`.

    Attributes:
        k: number of classes; "auto" takes those of the data set, or the highest id in the masks.
        size: (H, W) in pixels to which images are squashed, for training and prediction.
        ratio: least and largest factor on that size in training.
        flip: mirror half of the crops.
        distort: change brightness, contrast, saturation and hue in training.
        held: share of the images that is not learned from; their masks say when to stop.
        patience: looks at them without a lower loss after which the training ends.
        batch, iterations: crops per step, and most steps.
        lr, decay, optimiser, warmup: see training/supervised.py.
        amp: train in bfloat16: "auto" (where it is faster), "on" or "off".
        seed: fixes every draw.
        refine: see stages/refine.py.
    """

    k: int | str = "auto"
    size: tuple[int, int] = (224, 224)
    ratio: tuple[float, float] = (0.75, 1.5)
    flip: bool = True
    distort: bool = True
    held: float = 0.1
    patience: int = 10
    batch: int = 4
    iterations: int = 800
    lr: float = 1e-3
    decay: float = 0.05
    optimiser: str = "adamw"
    warmup: int = 50
    amp: str = "auto"
    seed: int = 0
    refine: str = "guided"


DEEP = Config(
    network=pupils.DEEP,
    arch="resnet-50",
    start=pupils.RANDOM,
    ratio=(0.5, 2.0),
    distort=False,
    batch=8,
    iterations=8000,
    lr=0.01,
    decay=1e-4,
    optimiser="sgd",
    warmup=0,
    refine="bilinear",
)
PRESETS = {
    "default": Config(),
    "protocol": Config(refine="bilinear"),
    "deeplabv3": DEEP,
    "deeplabv3-16": replace(DEEP, output_stride=16),
    "deeplabv3-101": replace(DEEP, arch="resnet-101"),
}


class Deeplab(Method):
    """A student that learns from masks."""

    name = "deeplab"
    PRESETS = PRESETS
    auto_backbone = "none"
    config: Config

    def __init__(self, config: Config, backbone: Backbone) -> None:
        super().__init__(config, backbone)
        if config.amp not in AMP:
            raise unknown_name("choice of amp", config.amp, AMP)
        if config.network == pupils.DEEP and config.batch < 2:  # before anything is read
            raise UsageError(f"deeplabv3 needs a batch of 2 or more, got {config.batch}.")
        side = min(config.size)  # of crops, so that training and prediction see one scale
        flip = 0.5 if config.flip else 0.0
        scene: SceneConfig = pick(SceneConfig, config, short=side, crop=side, flip=flip)
        self._lessons: Lessons = pick(Lessons, config, scene=scene)
        self._training: SupervisedTraining = pick(
            SupervisedTraining, config, amp=use_amp(config.amp, backbone.device)
        )
        self._net: tuple[Tensor, Pupil] | None = None

    @property
    def k(self) -> int:
        """See `Method.k`."""
        return len(self.arrays[pupils.HEADS[self.config.network]])

    def names(self) -> dict[int, str]:
        """See `Method.names`: those of the classes, where the data set has names."""
        return dict(enumerate(self.class_names[: self.k]))

    def fit(self, samples: Sequence[Sample], *, store: Store) -> None:
        """See `Method.fit`; samples without a mask are left out, and so are empty masks."""
        c = self.config
        masked = [sample for sample in samples if sample.load_label is not None]
        if not masked:
            raise UsageError(
                "deeplab learns masks, and none of these images has one. Give a labelled data set, "
                "or the run of a method without labels to `zerolabel refine`."
            )
        self.class_names = class_names(masked)
        asked = c.k if isinstance(c.k, int) else len(self.class_names)
        seen = supervise.inspect(masked, classes=asked or None, store=store)
        begin = pupils.start(c, classes=len(seen.pixels), seed=c.seed)
        empty = set(seen.void)
        samples = [sample for sample in masked if sample.id not in empty]
        # a share of less than one image tells nothing, and may leave none to learn from
        held = c.held if c.held * len(samples) >= 1 else 0.0
        found = denoise.train(
            begin,
            self._training,
            replace(self._lessons, held=held),
            patience=c.patience,
            samples=samples,
            size=c.size,
            facts=(seen.pixels.tolist(), seen.images.tolist()),
            device=self.backbone.device,
            store=store,
        )
        self.arrays, self.losses = found.weights, found.losses
        self.notes = [note for note in self.notes if not note.startswith((LABELS, STUDENT))]
        self.notes += [LABELS + problem for problem in seen.problems()]
        self.notes += [f"{STUDENT}began from {begin.words}"]
        self.notes += [STUDENT + denoise.words(found, self._training)]

    def evidence(
        self, samples: Sequence[Sample], *, store: Store
    ) -> tuple[list[tuple[Sample, Evidence]], dict[str, str]]:
        """See `Method.evidence`; scores are probabilities on the student's grid."""
        found, failures = [], {}
        for sample in samples:
            try:
                scores = self._look(sample)
            except ImageError as error:
                failures[sample.id] = str(error)
                continue
            found.append((sample, Evidence(scores, surest(scores))))
        return found, failures

    def look_into(self, sample: Sample, *, store: Store) -> Anatomy:
        """See `Method.look_into`; what is compared are probabilities, averaged over a grid."""
        scores = self._look(sample)
        h, w = (min(GRID, side) for side in scores.shape[1:])
        coarse = F.adaptive_avg_pool2d(scores, (h, w))
        sizes = scores.argmax(0).flatten().bincount(minlength=self.k)
        names = self.names()
        maps = {
            names.get(i, f"class {i}"): scores[i]
            for i in sizes.argsort(descending=True, stable=True)[:SHOWN].tolist()
        }
        return Anatomy(coarse.permute(1, 2, 0), coarse.argmax(0), maps=maps)

    def student(self) -> Pupil:
        """The network with the weights of the model, built once: frozen, in evaluation mode."""
        mark = self.arrays[pupils.HEADS[self.config.network]]
        if self._net is None or self._net[0] is not mark:
            net = pupils.rebuild(self.arrays, self.config)
            self._net = mark, net.to(self.backbone.device)
        return self._net[1]

    def _look(self, sample: Sample) -> Tensor:
        """Probabilities of the classes in an image, float32 (K, h, w)."""
        net = self.student()
        H, W = (max(net.patch, side - side % net.patch) for side in self.config.size)
        image = denoise.small(sample.load(), (H, W))[None].to(self.backbone.device)
        return denoise.look(net, image)[0].cpu()
