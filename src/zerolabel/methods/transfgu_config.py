"""Settings of TransFGU: one dataclass, and the published choices per data set.

What the paper and its code say differs in places; the presets follow the code, see
docs/methods/transfgu.md.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from zerolabel.stages.categorise import Categorise
from zerolabel.stages.crops import Crops
from zerolabel.stages.responses import Responding


@dataclass(frozen=True, kw_only=True)
class Config(Categorise, Crops, Responding):
    """Settings; those of the steps are documented there.

    Attributes:
        size: (H, W) in pixels at which images are looked at; crops are cut from larger ones.
        betas, crop_size, prior, prior_scale: other defaults than the step has by itself.
        stuff: how many of the `k` categories are those of background crops; 0 leaves these out.
        background: "none", or "quiet": category 0 is what responds to nothing, and counts in `k`.
        apart: whether objects respond in the foreground only, and stuff outside of it only.
        train: "initial" (the responses decide), "trained" (a decoder learns from them) or
            "bootstrapped" (and then in rounds from what it was, too).
        student: who learns: "segmenter" (the paper's mask transformer on the backbone's tokens),
            "conv" (convolutions on them), "r50-fpn-segmenter" or "r50-fpn-conv" (the same on the
            pyramid of a residual network, which learns too).
        student_weights: a file with the residual network that the latter start from; else random.
        select: which of its epochs is kept: "last", or "labels" (the best on labels of the images
            that it is fitted on, as the published code does; scores then have seen labels).
        epochs, repeat, batch, lr, decay, start, intervals: of the training.
        norm, peer, uncertainty, diversity, teacher: its targets and losses.
        distort: whether it changes colours.
        amp: "auto" (bfloat16 where the processor multiplies it faster), "on" or "off".
        refine: see stages/refine.py.
    """

    size: tuple[int, int] = (224, 224)
    betas: tuple[float, ...] = (0.55,)
    crop_size: int = 128
    prior: bool = False
    prior_scale: float = 0.5
    stuff: int = 0
    background: str = "none"
    apart: bool = False
    train: str = "bootstrapped"
    student: str = "segmenter"
    student_weights: str = ""
    select: str = "last"
    epochs: int = 3
    repeat: int = 0
    batch: int = 16
    lr: float = 1e-4
    decay: float = 5e-4
    start: int = 1
    intervals: tuple[int, ...] = (1,)
    norm: str = "image"
    peer: bool = True
    uncertainty: float = 0.3
    diversity: float = 1.0
    teacher: float = 0.5
    distort: bool = True
    amp: str = "auto"
    refine: str = "guided"


# The published code for COCO-Stuff with 27 classes; the other data sets differ from it.
COCO27 = Config(
    k=27,
    stuff=15,
    size=(320, 320),
    betas=(0.5, 0.4, 0.3, 0.2),
    windows="code",
    crop_size=320,
    prior=True,
    prior_scale=1.0,
    init="random",
    restarts=1,
    grad_scale=1 / 8,
    epochs=200,
    repeat=1,
    batch=256,
    start=2,
    intervals=(2,),
    norm="crop",
    refine="bilinear",
)
COCO171 = replace(COCO27, k=171, stuff=91, start=3, intervals=(3, 3, 3, 2))
LIP = replace(
    COCO27,
    k=6,
    stuff=0,
    size=(640, 320),
    prior=False,
    background="quiet",
    categorise="minibatch",
    init="k-means++",
    grad_scale=1 / 2,
    epochs=100,
    batch=512,
)
PRESETS = {
    "default": Config(),
    "protocol": Config(refine="bilinear"),  # every pixel labelled, without help from the photo
    "coco27": COCO27,
    "coco27-curated": replace(COCO27, lr=2.2e-4, start=1, intervals=(1,)),
    "coco171": COCO171,
    "coco80": replace(COCO171, k=81, stuff=0, background="quiet"),
    "cityscapes": replace(
        COCO27,
        stuff=0,
        size=(320, 640),
        prior=False,
        categorise="minibatch",
        init="k-means++",
        grad_scale=1 / 2,
        lr=5e-5,
        epochs=50,
        repeat=20,
        start=1,
        intervals=(1,),
    ),
    "voc": replace(
        COCO27,
        k=21,
        stuff=0,
        background="quiet",
        betas=(0.6, 0.5, 0.4, 0.3),
        epochs=100,
        repeat=20,
        batch=512,
        start=5,
        intervals=(5, 5, 5, 5, 4, 4, 4, 4, 4, 3),
    ),
    "lip5": LIP,
    "lip16": replace(LIP, k=17, lr=2e-5),
    "lip19": replace(LIP, k=20, lr=2e-5, batch=256, start=3, intervals=(3, 3, 3, 2)),
}
