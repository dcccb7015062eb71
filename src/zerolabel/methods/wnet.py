"""W-Net: segments from nothing, no weights and no labels (Xia and Kulis, 2017).

A U-Net turns an image into K channels, another one turns them back into the image. The channels are
to cut the image where neighbours differ (soft normalised cut), and to keep what it takes to draw
it. Then edges decide which of the pieces are one.
Shapes: `C` bands, `H W` pixels, `K` channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from zerolabel.backbones import Backbone
from zerolabel.errors import ImageError, UsageError
from zerolabel.methods.base import BATCH, ENOUGH, Anatomy, Evidence, Method, Portrait
from zerolabel.methods.built import Built
from zerolabel.methods.configs import pick
from zerolabel.methods.pixels import anatomy, coarse, one_by_one
from zerolabel.methods.wnet_config import CHANNELS, PRESETS, Config
from zerolabel.networks.unet import UNetConfig, WNet, random_wnet
from zerolabel.ops.ncut import Affinity
from zerolabel.ops.regions import components
from zerolabel.ops.ultrametric import segment_at
from zerolabel.stages import wnet
from zerolabel.stages.categorise import Categorise, categorise
from zerolabel.stages.merging import levels, means, merged, tree_of
from zerolabel.stages.pictures import kept_scale, picture, scale
from zerolabel.store import Store
from zerolabel.training.wnet import WnetTraining
from zerolabel.types import Image, Sample

NOTE = "channels: "
LOOKED_AT, LEAST = 16, 0.01  # images that tell which channels are used; share that counts
PIECE = 0.005  # share of an image below which a piece does not help to find categories
SHARP = 20.0  # of the softmax over cosines to categories
FLOOR = 1e-4  # of a probability, where its logarithm is taken
RECONSTRUCTION, MERGING = "Reconstruction", "Merging"
DRAWN_AGAIN = "What can be told of an image from the probabilities of its channels alone."
MERGED = (
    "Pieces of one channel, merged along the weakest borders first. The setting level takes the "
    "categories of all images from pieces at one of these levels."
)


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
        self._net = Built[WNet]()

    @property
    def k(self) -> int:
        """See `Method.k`."""
        return len(self.arrays.get("centroids", self.arrays["encoder.head.bias"]))

    def fit(self, samples: Sequence[Sample], *, store: Store) -> None:
        """See `Method.fit`."""
        c, found = self.config, scale(samples, store=store)
        weights, self.losses = wnet.train(
            self._network(found.bands),
            self._training(),
            samples,
            found,
            size=c.size,
            crop=c.squares,
            flip=c.flip,
            device=self.backbone.device,
            store=store,
        )
        self.arrays = weights | found.arrays()
        if c.categorise != CHANNELS:
            self.arrays["centroids"] = self._categories(samples, store=store)
        self.notes = [note for note in self.notes if not note.startswith(NOTE)]
        self.notes += [NOTE + self._usage(samples, store=store)]

    def evidence(
        self, samples: Sequence[Sample], *, store: Store
    ) -> tuple[list[tuple[Sample, Evidence]], dict[str, str]]:
        """See `Method.evidence`; scores are probabilities, and for the CRF their logarithms."""
        return one_by_one(samples, self._see)

    def _see(self, sample: Sample) -> Evidence:
        scores, parts, image = self._pieces(sample)
        if "centroids" in self.arrays:
            vectors, own = self._describe(scores, parts, image)
            near = (vectors @ self.arrays["centroids"].T * SHARP).softmax(1)  # (R, K)
            scores, parts = near[own].permute(2, 0, 1), own
        winners = F.one_hot(scores.argmax(0), self.k).permute(2, 0, 1)
        share = winners.sum((1, 2))
        sure = (scores * winners).sum((1, 2)) / share.clamp_min(1)
        typical = torch.where(share > 0, sure, -1.0)
        if self.config.refine == "crf":
            scores = scores.clamp_min(FLOOR).log()
        return Evidence(scores, typical, parts=parts)

    def look_into(self, sample: Sample, *, store: Store) -> Anatomy:
        """See `Method.look_into`; there are no patches, so pixels are averaged over a grid."""
        _, scores = self._look(sample)
        seen = anatomy(scores, {}, other="channel")
        if "centroids" not in self.arrays:
            return seen
        [(_, found)], _ = self.evidence([sample], store=store)
        return replace(seen, parts=coarse(found.scores).argmax(0))

    def portray(self, sample: Sample) -> Sequence[Portrait]:
        """See `Method.portray`: the image drawn again, and its pieces at several levels."""
        image, scores = self._look(sample)
        again = wnet.reconstruct(self.network(), self._normalised(image))
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

    def _look(self, sample: Sample) -> tuple[Tensor, Tensor]:
        """An image, (C, H, W) of 0..255, and the probabilities of its channels, (K, H, W)."""
        size = None if self.config.native else self.config.size
        image = picture(sample, kept_scale(self.arrays), size=size)
        encoder, tile = self.network().encoder, self.config.tile
        return image, wnet.look(encoder, self._normalised(image), tile=tile)

    def _pieces(self, sample: Sample) -> tuple[Tensor, Tensor | None, Tensor]:
        """Probabilities (K, H, W), merged pieces (H, W) where they are asked for, and the image."""
        image, scores = self._look(sample)
        if not self.config.level:
            return scores, None, image
        scores, parts = merged(scores, image, level=self.config.level)
        return scores, parts, image

    def _describe(
        self, scores: Tensor, parts: Tensor | None, image: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Mean colours and probabilities of every piece, as directions (R, C + K); the pieces."""
        if parts is None:
            parts = torch.from_numpy(components(scores.argmax(0).numpy(), connectivity=4)).long()
        described = means(torch.cat([image / 255 - 0.5, scores]), parts)  # (C + K, R)
        return F.normalize(described.T, dim=1), parts

    def _categories(self, samples: Sequence[Sample], *, store: Store) -> Tensor:
        """Find categories among the pieces of all images: centroids, float32 (K, C + K')."""
        share, drawn = max(1, ENOUGH // len(samples)), []
        for _, batch in store.track("regions", samples, BATCH):
            for sample in batch:
                try:
                    vectors, parts = self._describe(*self._pieces(sample))
                except ImageError:
                    continue
                size = torch.bincount(parts.flatten(), minlength=len(vectors))
                large = (size >= PIECE * parts.numel()) | (size == size.max())
                drawn.append(vectors[large][:share])
        options: Categorise = pick(Categorise, self.config)
        return categorise(torch.cat(drawn), options).centroids

    def _usage(self, samples: Sequence[Sample], *, store: Store) -> str:
        """Say how many channels some of the images use."""
        count = min(LOOKED_AT, len(samples))
        some = [samples[i * len(samples) // count] for i in range(count)]
        pixels = torch.zeros(self.config.k)
        for sample in some:
            try:
                scores, _, _ = self._pieces(sample)
            except ImageError:
                continue
            pixels += torch.bincount(scores.argmax(0).flatten(), minlength=len(pixels))
        used = int((pixels > LEAST * pixels.sum()).sum())
        return f"{used} of {len(pixels)} have more than {LEAST:.0%} of the pixels of {count} images"

    def _training(self) -> WnetTraining:
        training: WnetTraining = pick(
            WnetTraining, self.config, affinity=pick(Affinity, self.config)
        )
        return training

    def _network(self, bands: int) -> UNetConfig:
        made: UNetConfig = pick(UNetConfig, self.config, bands=bands, outputs=self.config.k)
        return made

    def _normalised(self, image: Tensor) -> Tensor:
        return image.to(self.backbone.device) / 255

    def network(self) -> WNet:
        """The network with the weights of the model, built once: frozen, in evaluation mode."""
        return self._net.get(self.arrays["encoder.head.bias"], self._build)

    def _build(self) -> WNet:
        net = random_wnet(self._network(len(self.arrays["low"])), seed=0)
        net.load_state_dict({name: self.arrays[name] for name in net.state_dict()})
        return net.to(self.backbone.device).eval().requires_grad_(False)


def shown(image: Tensor) -> Image:
    """Make a picture of bands (C, H, W) of 0..255: the first three, or a grey one."""
    three = image[:3] if len(image) >= 3 else image[:1].expand(3, -1, -1)
    return np.ascontiguousarray(three.round().clamp(0, 255).byte().permute(1, 2, 0).numpy())
