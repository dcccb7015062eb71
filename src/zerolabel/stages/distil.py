"""What CLIP, rectified or not, says of photos is taught to a student, once per run.

Shapes: `B` squares, `H W` pixels, `h w` patch grid of CLIP, `h' w'` grid of the student, `P`
channels of the space shared with texts, `Q` words.

Source: Wang and Kang, "ReCLIP++", 2024, section III-E; Zhou et al., ECCV 2022 (MaskCLIP+).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from zerolabel.backbones import cache, student
from zerolabel.backbones.clip import ClipBackbone
from zerolabel.backbones.weights import digest
from zerolabel.data.folder import file_digest
from zerolabel.data.transforms import to_tensor
from zerolabel.errors import ImageError, unknown_name
from zerolabel.networks.bias import BiasConfig, Rectifier
from zerolabel.networks.deeplab import DeepLabConfig
from zerolabel.networks.distilled import Distilled
from zerolabel.networks.resnet import ARCHITECTURES, ResNetConfig
from zerolabel.ops.resize import resize
from zerolabel.stages.dense import Look, Seen, whole
from zerolabel.stages.parts import arrays_of, train_in_parts, trained
from zerolabel.stages.views import Library
from zerolabel.store import Stage, Store
from zerolabel.training.distil import Distillation, DistilTrainer
from zerolabel.types import Sample

NONE = "none"
STUDENTS = {  # the first is for two cores and tests, the others are published bodies
    "small": ResNetConfig("basic", (1, 1, 1, 1), width=16, output_stride=8),
    **{name: replace(body, output_stride=8) for name, body in ARCHITECTURES.items()},
}
TAUGHT = ("student.", "head.")  # prefixes of what it learned in a model


@dataclass(frozen=True, kw_only=True)
class Student:
    """Options of the step.

    Attributes:
        student: "none", or the body of a DeepLabV2: "small", "resnet-18", "resnet-34", "resnet-50"
            or "resnet-101".
        student_weights: a file with a residual network of ImageNet, which then decides the body;
            empty starts from random weights.
        student_steps: steps of the training; only if there are no epochs.
        student_epochs: passes over all photos.
        student_batch: squares per step; 0 takes those of `batch`.
        student_lr: learning rate at the start.
        head: "inherited", "query+bias", "query" or "own", see `networks.distilled`.
        mask, feature, text: weights of the losses, see `training.distil`.
        mask_scale: of the scores in the first of them.
        student_relu: a rectifier after the last convolutions, as published; then no value of the
            student's vectors is below 0, and those of CLIP are.
    """

    student: str = NONE
    student_weights: str = ""
    student_steps: int = 600
    student_epochs: int = 0
    student_batch: int = 0
    student_lr: float = 0.01
    head: str = "inherited"
    mask: float = 1.0
    feature: float = 0.5
    text: float = 0.5
    mask_scale: float = 1.0
    student_relu: bool = False

    def __post_init__(self) -> None:
        if self.student not in (NONE, *STUDENTS):
            raise unknown_name("student", self.student, (NONE, *STUDENTS))


def train(
    options: Student,
    training: Distillation,
    library: Library,
    label: Callable[[Tensor, Tensor], Tensor],
    *,
    teacher: Rectifier | None,
    queries: Tensor,
    references: Tensor | None,
    facts: Sequence[object],
    store: Store,
) -> tuple[dict[str, Tensor], dict[int, float]]:
    """Teach a student, or take up what was taught before.

    Args:
        options: who it is.
        training: how it learns.
        library: squares of photos, and the backbone that sees them.
        label: turns dense features (B, h, w, P) and positions (h, w, D) into the teacher's words,
            int64 (B, h, w).
        teacher: whose head is inherited; None without bias.
        queries: texts of the words, float32 (Q, P), unit rows.
        references: of the teacher, float32 (Q, P).
        facts: what else the teacher depends on.
        store: keeps the result, and every part what is needed to go on.

    Returns:
        Weights behind the prefixes `TAUGHT`, and from step to loss.
    """
    backbone = library.backbone
    grid = (library.views.crop // backbone.stride,) * 2
    start = file_digest(Path(options.student_weights)) if options.student_weights else ""
    asked = replace(options, student_weights=start)  # what is in the file, not where it lies
    known = digest({"queries": queries})
    facts = (backbone.digest, asked, training, library.views, known, *facts)
    name = cache.key("distil", library.samples, *facts)

    def work() -> Stage:
        body = STUDENTS[options.student]
        config = DeepLabConfig(resnet=body, out=queries.shape[1], relu=options.student_relu)
        pupil = student.start(config, options.student_weights or None, seed=training.seed)
        trainer = DistilTrainer(
            pupil.to(backbone.device),
            teacher,
            training,
            queries=queries.to(backbone.device),
            references=None if references is None else references.to(backbone.device),
        )
        positions = backbone.positions(grid)

        def learn() -> float:
            page = library.page(trainer.step)
            dense = page.dense.to(backbone.device)
            images = student.normalise(library.pixels(page).to(backbone.device))
            return trainer.learn(images, dense, label(dense, positions), positions)

        losses = train_in_parts(name, trainer, learn, steps=training.iterations, store=store)
        return Stage(arrays_of(trainer.weights()), {"losses": losses})

    return trained(name, work, steps=training.iterations, store=store)


def rebuild(
    arrays: Mapping[str, Tensor], options: Student, *, bias: BiasConfig | None, unit: bool
) -> Distilled:
    """Build the student whose weights a model holds, to predict with."""
    weights = {name: value for name, value in arrays.items() if name.startswith(TAUGHT)}
    return student.rebuild(weights, head=options.head, unit=unit, bias=bias)


def photos(
    net: Distilled, backbone: ClipBackbone, batch: Sequence[Sample], look: Look
) -> tuple[list[Seen], dict[str, str]]:
    """Let a student see whole photos, one after the other.

    Args:
        net: the student, on the backbone's device.
        backbone: whose patches decide the size.
        batch: the photos.
        look: at which size.

    Returns:
        Its vectors, of any length, (h', w', P) of the photos that could be read, in their order,
        and id -> reason for the others.
    """
    seen, failures = [], {}
    for sample in batch:
        try:
            image = sample.load()
        except ImageError as error:
            failures[sample.id] = str(error)
            continue
        size = whole((image.shape[0], image.shape[1]), look, patch=backbone.stride)
        small = resize(to_tensor(image)[None], size, mode="bilinear").to(backbone.device)
        with torch.no_grad():
            found = net.student(student.normalise(small)).float().permute(0, 2, 3, 1)
        seen.append(Seen(sample, found[0].cpu()))
    return seen, failures
