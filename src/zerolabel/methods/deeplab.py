"""Students of masks: DeepLabV3 (Chen et al., 2017), or a light network for processors.

The last step of DatUS2 and the verb refine: a network learns the masks that a method without labels
has found in many images, leaves out where they disagree, and fills in what they left open (255).
It is told nothing else: it is fitted on whatever masks `Sample.load_label` gives, drawn or found.
Shapes: `H W` pixels, `h w` grid of the student, `K` classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from zerolabel.backbones import Backbone, pupils
from zerolabel.backbones.pupils import Pupil, Student
from zerolabel.errors import UsageError, unknown_name
from zerolabel.methods.built import Built
from zerolabel.methods.configs import pick
from zerolabel.methods.pixels import PixelMethod
from zerolabel.methods.told import ToldMethod
from zerolabel.stages import denoise
from zerolabel.store import Store
from zerolabel.training.lessons import Lessons
from zerolabel.training.precision import use_amp
from zerolabel.training.scenes import SceneConfig
from zerolabel.training.supervised import SupervisedTraining
from zerolabel.types import Sample

AMP = ("auto", "on", "off")
ENCODER = ("auto", "frozen", "tuned")
NOTE = "student: "


@dataclass(frozen=True, kw_only=True)
class Config(Student):
    """Settings; see `backbones.pupils` for `network`, `arch`, `output_stride` and `start`.

    Attributes:
        k: number of classes; "auto" takes those of the data set, or the highest id in the masks.
        encoder: "frozen", "tuned", or "auto": it learns only where it starts from random weights.
        balance: how far rare categories are helped, 0..1; see `training.denoise.handicaps`.
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
    encoder: str = "auto"
    balance: float = 0.75
    size: tuple[int, int] = (224, 224)
    ratio: tuple[float, float] = (0.75, 1.5)
    flip: bool = True
    distort: bool = True
    held: float = 0.1
    patience: int = 10
    batch: int = 4
    iterations: int = 400
    lr: float = 1e-3
    decay: float = 0.05
    optimiser: str = "adamw"
    warmup: int = 50
    amp: str = "auto"
    seed: int = 0
    refine: str = "guided"

    @property
    def tuned(self) -> bool:
        """Whether the encoder learns, too."""
        return self.encoder == "tuned" or (self.encoder == "auto" and self.start == pupils.RANDOM)


DEEP = Config(
    network=pupils.DEEP,
    arch="resnet-50",
    start=pupils.RANDOM,
    encoder="tuned",
    balance=0.0,
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


class Deeplab(ToldMethod, PixelMethod):
    """A student that learns from masks."""

    name = "deeplab"
    PRESETS = PRESETS
    config: Config

    def __init__(self, config: Config, backbone: Backbone) -> None:
        super().__init__(config, backbone)
        if config.amp not in AMP:
            raise unknown_name("choice of amp", config.amp, AMP)
        if config.encoder not in ENCODER:
            raise unknown_name("choice of encoder", config.encoder, ENCODER)
        if config.encoder == "frozen" and config.start == pupils.RANDOM:
            raise UsageError(
                "A frozen encoder with random weights knows nothing. Expected encoder=tuned, or "
                "weights to start from: --set start=FILE."
            )
        if not 0 <= config.balance <= 1:
            raise UsageError(f"balance is from 0 to 1, got {config.balance}.")
        if config.network == pupils.DEEP and config.batch < 2:  # before anything is read
            raise UsageError(f"deeplabv3 needs a batch of 2 or more, got {config.batch}.")
        side = min(config.size)  # of crops, so that training and prediction see one scale
        flip = 0.5 if config.flip else 0.0
        scene: SceneConfig = pick(SceneConfig, config, short=side, crop=side, flip=flip)
        self._lessons: Lessons = pick(Lessons, config, scene=scene)
        self._training: SupervisedTraining = pick(
            SupervisedTraining, config, amp=use_amp(config.amp, backbone.device)
        )
        self._net = Built[Pupil]()

    @property
    def k(self) -> int:
        """See `Method.k`."""
        return len(self.arrays[pupils.HEADS[self.config.network]])

    def fit(self, samples: Sequence[Sample], *, store: Store) -> None:
        """See `Method.fit`; samples without a mask are left out, and so are empty masks."""
        c = self.config
        advice = (
            "deeplab learns masks, and none of these images has one. Give a labelled data set, or "
            "the run of a method without labels to `zerolabel refine`."
        )
        masked, seen = self.told(samples, advice=advice, store=store)
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
            balance=c.balance,
            pixels=seen.pixels.tolist(),
            facts=seen.images.tolist(),
            device=self.backbone.device,
            store=store,
        )
        self.arrays, self.losses = found.weights, found.losses
        self.notes = [note for note in self.notes if not note.startswith(NOTE)]
        learns = "" if c.tuned else "; only its decoder learned"
        self.notes += [f"{NOTE}began from {begin.words}{learns}"]
        self.notes += [NOTE + denoise.words(found, self._training)]

    def student(self) -> Pupil:
        """The network with the weights of the model, built once: frozen, in evaluation mode."""
        return self._net.get(self.arrays[pupils.HEADS[self.config.network]], self._build)

    def seen_at(self) -> tuple[int, int]:
        """(H, W) in pixels at which the student sees images: `size` in whole patches."""
        patch = self.student().patch
        H, W = (max(patch, side - side % patch) for side in self.config.size)
        return H, W

    def _build(self) -> Pupil:
        return pupils.rebuild(self.arrays, self.config).to(self.backbone.device)

    def _look(self, sample: Sample) -> Tensor:
        """See `PixelMethod._look`; on the student's grid."""
        image = denoise.small(sample.load(), self.seen_at())[None].to(self.backbone.device)
        return denoise.look(self.student(), image)[0].cpu()
