"""W-Net: segments from nothing, no weights and no labels (Xia and Kulis, 2017).

A U-Net turns an image into K channels, another one turns them back into the image. The channels are
to cut the image where neighbours differ (soft normalised cut), and to keep what it takes to draw
it. Then edges decide which of the pieces are one.
Shapes: `C` bands, `H W` pixels, `K` channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from zerolabel.backbones import Backbone
from zerolabel.errors import ImageError, UsageError
from zerolabel.methods.base import Anatomy, Evidence, Method, Portrait, pick
from zerolabel.networks.unet import UNetConfig, WNet, random_wnet
from zerolabel.ops.edges import edge_strength
from zerolabel.ops.ncut import Affinity
from zerolabel.ops.ultrametric import MergeTree, merge_tree, segment_at
from zerolabel.stages import wnet
from zerolabel.stages.pictures import Scale, picture, scale
from zerolabel.store import Store
from zerolabel.training.wnet import WnetTraining
from zerolabel.types import Image, Sample

NOTE = "channels: "
GRID = 28  # cells a side of what `explain` compares
LOOKED_AT, LEAST = 16, 0.01  # images that tell which channels are used; share that counts
SHOWN = 4  # channels that it draws
STEPS = 8  # levels that the report shows
RECONSTRUCTION, MERGING = "Reconstruction", "Merging"
DRAWN_AGAIN = "What can be told of an image from the probabilities of its channels alone."
MERGED = (
    "Pieces of one channel, merged along the weakest borders first. The setting level takes the "
    "categories of all images from pieces at one of these levels."
)


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings; see `networks.unet`, `ops.ncut` and `training.wnet`.

    Attributes:
        k: number of channels K, the categories.
        size: (H, W) in pixels to which images are squashed.
        native: whether images are predicted at their own size instead.
        tile: sides of larger images are cut into so many pixels.
        base, depth, separable, norm_last, dropout: of the network.
        radius, sigma_value, sigma_place, squared, inclusive: of pairs of pixels.
        ncut: "pairwise" or "class-mean".
        update, ncut_scope, ncut_weight, rec_weight, reduction: of the two losses.
        optimiser, lr, decoder_lr, drop_every, drop: of the training.
        batch, iterations: images per step, and steps.
        flip: mirror half of the images.
        level: pieces whose common border is as weak as this, 0..1, are merged, and take the
            category of most of what they hold; 0 merges none.
        seed: fixes every draw.
        refine: see stages/refine.py.
    """

    k: int = 9
    size: tuple[int, int] = (224, 224)
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
    update: str = "alternate"
    ncut_scope: str = "encoder"
    ncut_weight: float = 1.0
    rec_weight: float = 1.0
    reduction: str = "sum"
    optimiser: str = "adam"
    lr: float = 0.003
    decoder_lr: float = 0.004
    drop_every: int = 0
    drop: float = 0.1
    batch: int = 8
    iterations: int = 400
    flip: bool = True
    level: float = 0.0
    seed: int = 0
    refine: str = "guided"


ORIGINAL = Config(
    base=64,
    dropout=0.65,
    optimiser="sgd",
    lr=0.003,
    decoder_lr=0.003,
    drop_every=1000,
    reduction="mean",
    batch=10,
    iterations=50_000,
    refine="crf",
)
SEED = replace(
    ORIGINAL,
    norm_last=False,
    ncut="class-mean",
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
    "single-image": Config(batch=1, iterations=150, native=True),
    "original": ORIGINAL,
    "seed-mp4": replace(SEED, size=(288, 288), iterations=2_700),
    "seed-ade20k": replace(SEED, size=(384, 384), lr=0.0005, decoder_lr=0.0005, iterations=75_000),
    "seed-ade20k-150": replace(
        SEED, k=150, size=(384, 384), lr=0.0005, decoder_lr=0.0005, iterations=75_000
    ),
}


class Wnet(Method):
    """Channels that cut an image well and from which it can be drawn."""

    name = "wnet"
    PRESETS = PRESETS
    auto_backbone = "none"
    config: Config

    def __init__(self, config: Config, backbone: Backbone) -> None:
        if not 0 <= config.level <= 1:
            raise UsageError(f"level is a strength of 0..1, got {config.level:g}.")
        super().__init__(config, backbone)
        self._training()
        self._net: tuple[Tensor, WNet] | None = None

    @property
    def k(self) -> int:
        """See `Method.k`."""
        return len(self.arrays["encoder.head.bias"])

    def fit(self, samples: Sequence[Sample], *, store: Store) -> None:
        """See `Method.fit`."""
        c, found = self.config, scale(samples, store=store)
        weights, self.losses = wnet.train(
            self._network(found.bands),
            self._training(),
            samples,
            found,
            size=c.size,
            flip=c.flip,
            device=self.backbone.device,
            store=store,
        )
        ends = {"low": torch.tensor(found.low), "high": torch.tensor(found.high)}
        self.arrays = weights | ends
        self.notes = [note for note in self.notes if not note.startswith(NOTE)]
        self.notes += [NOTE + self._usage(samples, store=store)]

    def evidence(
        self, samples: Sequence[Sample], *, store: Store
    ) -> tuple[list[tuple[Sample, Evidence]], dict[str, str]]:
        """See `Method.evidence`; scores are probabilities at the size that the network saw."""
        found, failures = [], {}
        for sample in samples:
            try:
                image = picture(sample, self._scale(), size=self._size())
            except ImageError as error:
                failures[sample.id] = str(error)
                continue
            scores = wnet.look(
                self._built().encoder, self._normalised(image), tile=self.config.tile
            )
            parts = None
            if self.config.level:
                scores, parts = merged(scores, image, level=self.config.level)
            winners = torch.nn.functional.one_hot(scores.argmax(0), self.k).permute(2, 0, 1)
            share = winners.sum((1, 2))
            sure = (scores * winners).sum((1, 2)) / share.clamp_min(1)
            typical = torch.where(share > 0, sure, -1.0)
            found.append((sample, Evidence(scores, typical, parts=parts)))
        return found, failures

    def look_into(self, sample: Sample, *, store: Store) -> Anatomy:
        """See `Method.look_into`; there are no patches, so pixels are averaged over a grid."""
        image = picture(sample, self._scale(), size=self._size())
        scores = wnet.look(self._built().encoder, self._normalised(image), tile=self.config.tile)
        coarse = torch.nn.functional.adaptive_avg_pool2d(scores[None], GRID)[0]
        parts = scores.argmax(0)
        most = torch.bincount(parts.flatten(), minlength=self.k).argsort(descending=True)[:SHOWN]
        maps = {f"channel {int(k)}": scores[k] for k in most}
        return Anatomy(coarse.permute(1, 2, 0), coarse.argmax(0), maps=maps)

    def portray(self, sample: Sample) -> Sequence[Portrait]:
        """See `Method.portray`: the image drawn again, and its pieces at several levels."""
        image = picture(sample, self._scale(), size=self._size())
        x = self._normalised(image)
        again = wnet.reconstruct(self._built(), x)
        scores = wnet.look(self._built().encoder, x, tile=self.config.tile)
        tree = tree_of(scores, image)
        pieces = {}
        for count, level in levels(tree.heights):
            pieces[f"{count} pieces, level {level:.2f}"] = segment_at(tree, level)
        return (
            Portrait(
                RECONSTRUCTION,
                DRAWN_AGAIN,
                {"image": shown(image), "from its channels": shown(255 * again)},
            ),
            Portrait(MERGING, MERGED, pieces, slider=True),
        )

    def _usage(self, samples: Sequence[Sample], *, store: Store) -> str:
        """Say how many channels some of the images use."""
        count = min(LOOKED_AT, len(samples))
        some = [samples[i * len(samples) // count] for i in range(count)]
        pixels = torch.zeros(self.k)
        for _, one in self.evidence(some, store=store)[0]:
            pixels += torch.bincount(one.scores.argmax(0).flatten(), minlength=self.k)
        used = int((pixels > LEAST * pixels.sum()).sum())
        return f"{used} of {self.k} have more than {LEAST:.0%} of the pixels of {count} images"

    def _training(self) -> WnetTraining:
        training: WnetTraining = pick(
            WnetTraining, self.config, affinity=pick(Affinity, self.config)
        )
        return training

    def _network(self, bands: int) -> UNetConfig:
        made: UNetConfig = pick(UNetConfig, self.config, bands=bands, outputs=self.config.k)
        return made

    def _scale(self) -> Scale:
        low, high = (tuple(self.arrays[end].tolist()) for end in ("low", "high"))
        return Scale(low, high)

    def _size(self) -> tuple[int, int] | None:
        return None if self.config.native else self.config.size

    def _normalised(self, image: Tensor) -> Tensor:
        return image.to(self.backbone.device) / 255

    def _built(self) -> WNet:
        """The network with the weights of the model, built once."""
        mark = self.arrays["encoder.head.bias"]
        if self._net is None or self._net[0] is not mark:
            net = random_wnet(self._network(len(self.arrays["low"])), seed=0)
            names = net.state_dict().keys()
            net.load_state_dict({name: self.arrays[name] for name in names})
            self._net = mark, net.to(self.backbone.device).eval().requires_grad_(False)
        return self._net[1]


def merged(scores: Tensor, image: Tensor, *, level: float) -> tuple[Tensor, Tensor]:
    """Merge the pieces of a label map along weak borders (algorithm 2).

    Args:
        scores: probabilities, float32 (K, H, W).
        image: float32 (C, H, W), 0..255.
        level: of the borders that vanish, 0..1.

    Returns:
        Mean probabilities of the piece that a pixel is in, float32 (K, H, W), and the pieces, int64
        (H, W).
    """
    tree = tree_of(scores, image)
    parts = torch.from_numpy(segment_at(tree, level)).long()
    flat, owners = scores.flatten(1), parts.flatten()
    sums = torch.zeros(len(flat), int(owners.max()) + 1).index_add_(1, owners, flat)
    means = sums / torch.bincount(owners).float()
    return means[:, owners].reshape(scores.shape), parts


def tree_of(scores: Tensor, image: Tensor) -> MergeTree:
    """Order the pieces of a label map by the strength of their borders in the image."""
    edges = edge_strength(image.permute(1, 2, 0).numpy())
    return merge_tree(scores.argmax(0).numpy().astype(np.int64), edges)


def levels(heights: NDArray[np.float32]) -> list[tuple[int, float]]:
    """Choose levels to show: all pieces, half of them, and so on down to two.

    Args:
        heights: of the merges, rising, float32 (R - 1,).

    Returns:
        Number of pieces and level, the lowest level first, at most `STEPS`.
    """
    whole = len(heights) + 1
    counts = sorted({max(1, whole >> i) for i in range(STEPS)} | {whole}, reverse=True)
    return [
        (count, float(heights[whole - count - 1]) if count < whole else 0.0)
        for count in counts[:STEPS]
    ]


def shown(image: Tensor) -> Image:
    """Make a picture of bands (C, H, W) of 0..255: the first three, or a grey one."""
    three = image[:3] if len(image) >= 3 else image[:1].expand(3, -1, -1)
    return np.ascontiguousarray(three.round().clamp(0, 255).byte().permute(1, 2, 0).numpy())
