"""Settings of W-Net, and its presets."""

from __future__ import annotations

from dataclasses import dataclass, replace

CHANNELS = "channels"  # what categories are without any clustering


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings; see `networks.unet`, `ops.ncut` and `training.wnet`.

    Attributes:
        k: number of channels K, the categories.
        size: (H, W) in pixels to which images are squashed.
        squares: side in pixels of random squares of these to learn from; 0 for whole images.
        native: whether images are predicted at their own size instead.
        tile: sides of larger images are cut into so many pixels.
        base, depth, separable, norm_last, dropout: of the network.
        radius, sigma_value, sigma_place, squared, inclusive: of pairs of pixels.
        ncut: "pairwise" or "class-mean".
        pooled: whether the cut is one of all images of a step, instead of one of each.
        update, ncut_scope, ncut_weight, rec_weight, reduction: of the two losses.
        optimiser, lr, decoder_lr, schedule, drop_every, drop: of the training.
        batch, iterations: images per step, and steps.
        flip: mirror half of the images.
        categorise: "channels", each of which is a category; or "kmeans" or "minibatch" of the
            pieces of all images, described by their mean colours and probabilities.
        level: pieces whose common border is as weak as this, 0..1, are merged, and take the
            category of most of what they hold; 0 merges none.
        seed: fixes every draw.
        refine: see stages/refine.py.
    """

    k: int = 9
    size: tuple[int, int] = (224, 224)
    squares: int = 112
    native: bool = False
    tile: int = 1024
    base: int = 16
    depth: int = 4
    separable: bool = True
    norm_last: bool = True
    dropout: float = 0.2
    radius: int = 5
    sigma_value: float = 10.0
    sigma_place: float = 4.0
    squared: bool = True
    inclusive: bool = True
    ncut: str = "pairwise"
    pooled: bool = True
    update: str = "joint"
    ncut_scope: str = "encoder"
    ncut_weight: float = 1.0
    rec_weight: float = 3.0
    reduction: str = "mean"
    optimiser: str = "adam"
    lr: float = 0.005
    decoder_lr: float = 0.005
    schedule: str = "cosine"
    drop_every: int = 0
    drop: float = 0.1
    batch: int = 8
    iterations: int = 500
    flip: bool = True
    categorise: str = CHANNELS
    level: float = 0.0
    seed: int = 0
    refine: str = "guided"


ORIGINAL = Config(
    squares=0,
    base=64,
    dropout=0.65,
    pooled=False,
    update="alternate",
    rec_weight=1.0,
    optimiser="sgd",
    lr=0.003,
    decoder_lr=0.003,
    schedule="step",
    drop_every=1000,
    batch=10,
    iterations=50_000,
    refine="crf",
)
SEED = replace(
    ORIGINAL,
    norm_last=False,
    ncut="class-mean",
    pooled=True,
    radius=4,
    sigma_place=5.0,
    sigma_value=1.0,
    optimiser="adam",
    decoder_lr=0.004,
    drop_every=0,
    batch=8,
)
PRESETS = {
    "default": Config(),
    "protocol": Config(refine="bilinear"),
    "single-image": Config(batch=4, iterations=150, native=True),
    "original": ORIGINAL,
    "seed-mp4": replace(SEED, size=(288, 288), iterations=2_700),
    "seed-ade20k": replace(SEED, size=(384, 384), lr=0.0005, decoder_lr=0.0005, iterations=75_000),
    "seed-ade20k-150": replace(
        SEED, k=150, size=(384, 384), lr=0.0005, decoder_lr=0.0005, iterations=75_000
    ),
}
