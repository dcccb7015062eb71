"""CLIP as a frozen backbone: images and texts in, vectors of one space out."""

from __future__ import annotations

import copy
import hashlib
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from zerolabel.backbones.clip_layouts import as_clip, build_clip, convert_clip
from zerolabel.backbones.layouts import load_exactly
from zerolabel.backbones.registry import (
    BACKBONES,
    CLIP_GIVES,
    CLIP_MEAN,
    CLIP_STD,
    IMAGENET_MEAN,
    IMAGENET_STD,
    Colour,
)
from zerolabel.backbones.tokenizer import Tokenizer, read_merges
from zerolabel.backbones.vit import RANDOM_SEED, VitBackbone, check_size
from zerolabel.backbones.vocabulary import vocabulary
from zerolabel.backbones.weights import cached, digest, load_file
from zerolabel.errors import UsageError, WeightsError, unknown_name
from zerolabel.networks.clip_image import PUBLISHED, ClipImage, Reading, random_clip_image
from zerolabel.networks.clip_text import ClipText, ClipTextConfig, random_clip_text
from zerolabel.networks.vit import VitConfig, vit_config
from zerolabel.types import Features

RANDOM_CLIP = re.compile(r"random-clip([tbl])(\d+)")
# Of images: architecture and blocks; of texts: channels, blocks and heads; channels shared.
SIZES = {
    "t": ("vit-tiny", 2, (64, 2, 1), 64),
    "b": ("vit-base", 12, (512, 12, 8), 512),
    "l": ("vit-large", 24, (768, 12, 12), 768),
}


class ClipBackbone(VitBackbone):
    """A frozen CLIP: image tower, text tower and tokenizer.

    Attributes:
        net: the image tower.
        text: the text tower.
        tokenizer: from texts to ids.
        projection: channels P of the space that images and texts share.
        reading: how `dense` is read from the last block.
        digest: hash of both towers, the vocabulary and the reading, equal for every file layout.
    """

    gives = CLIP_GIVES
    net: ClipImage

    def __init__(
        self,
        name: str,
        net: ClipImage,
        text: ClipText,
        *,
        tokenizer: Tokenizer,
        device: torch.device | str = "cpu",
        mean: Colour = CLIP_MEAN,
        std: Colour = CLIP_STD,
    ) -> None:
        super().__init__(name, net, device=device, mean=mean, std=std)
        if tokenizer.size != text.config.vocabulary:
            raise WeightsError(
                f"The text tower of {name} knows {text.config.vocabulary} tokens, its vocabulary "
                f"has {tokenizer.size}. Put the vocabulary that belongs to the weights beside them."
            )
        merges = hashlib.sha256(repr(tokenizer.merges).encode()).hexdigest()
        self.digest = _hash(self.digest, digest(text.state_dict()), merges)
        self.text = text.to(self.device).eval().requires_grad_(False)
        self.tokenizer = tokenizer
        self.projection = net.proj.shape[1]
        self.reading = PUBLISHED
        self._published: ClipBackbone | None = None  # what this one is another reading of

    def features(self, x: Tensor, want: Collection[str]) -> Features:
        """Run the image tower on what `prepare` returned."""
        out: Features = self.net(x, want, reading=self.reading)
        return out

    def read_as(
        self, *, residual: bool = True, mlp: bool = True, legacy: bool = False
    ) -> ClipBackbone:
        """Read the same weights another way; no weight is copied.

        Args:
            residual: whether `dense` adds a patch's token to its projected value.
            mlp: whether `dense` goes through the last MLP.
            legacy: run the image tower as the code of MaskCLIP and of the first ReCLIP++ does:
                exact GELU, layer norms with epsilon 1e-6, images normalised as for ImageNet. Texts
                are read as ever.

        Returns:
            The backbone, with a digest of its own unless it is read as published.
        """
        published, reading = self._published or self, Reading(residual=residual, mlp=mlp)
        if reading == PUBLISHED and not legacy:
            return published
        other = copy.copy(published)
        other._published, other.reading = published, reading
        other.digest = _hash(published.digest, repr(reading), str(legacy))
        if legacy:
            config = replace(published.net.config, activation="gelu", eps=1e-6)
            other.net = _holding(config, published.net.state_dict())
            other._normalise_by(IMAGENET_MEAN, IMAGENET_STD)
        return other

    def tuned(self, weights: Mapping[str, Tensor]) -> ClipBackbone:
        """Give the image tower other weights.

        Args:
            weights: all of it, by the names of `ClipImage`.

        Returns:
            Another backbone, with a digest of its own; texts and reading are shared.

        Raises:
            WeightsError: a tensor is missing, unexpected or of another shape.
        """
        other = copy.copy(self)
        held = {name: value.to(self.device) for name, value in weights.items()}
        other.net = _holding(self.net.config, held)
        other.digest = _hash(self.digest, digest(held))
        return other

    def positions(self, grid: tuple[int, int]) -> Tensor:
        """Carry the position embeddings over to a patch grid.

        Args:
            grid: rows and columns (h, w).

        Returns:
            float32 (h, w, D), without that of CLS.
        """
        return self.net.positions(grid)

    def tokenise(self, texts: Sequence[str]) -> Tensor:
        """Turn texts into ids.

        Args:
            texts: n texts.

        Returns:
            int64 (n, 77) on the backbone's device, filled up with 0 after the end.

        Raises:
            UsageError: a text is empty, or has more than 75 tokens.
        """
        return self.tokenizer.batch(texts, context=self.text.config.context).to(self.device)

    def encode_texts(self, texts: Sequence[str], *, batch: int = 256) -> Tensor:
        """Compute the features of texts.

        Args:
            texts: n texts.
            batch: texts that are computed at once, at least 1.

        Returns:
            float32 (n, P) in the order of the texts, not normalised, on the backbone's device.

        Raises:
            UsageError: a text is empty, or has more than 75 tokens.
        """
        ids = self.tokenise(texts)
        found = [torch.empty(0, self.projection, device=self.device)]
        with torch.no_grad():
            found += [self.text(ids[i : i + batch]) for i in range(0, len(ids), batch)]
        return torch.cat(found)


def load_clip(
    name: str,
    *,
    weights: str | Path | None,
    device: torch.device,
    tensors: Mapping[str, Tensor] | None = None,
) -> ClipBackbone:
    """Load a CLIP from a weights file.

    The vocabulary is looked for in the file's folder, then in the cache of every CLIP.

    Args:
        name: a registry name; with a weights file any name, and the network is told from the file.
        weights: the file; the cached one of the registry's entry by default.
        device: where to compute.
        tensors: what the file holds, where it was read before.

    Returns:
        The backbone.

    Raises:
        UsageError: the name is not in the registry and no file is given.
        WeightsError: weights or vocabulary are not here, cannot be read, or are of another network.
    """
    item = BACKBONES.get(name)
    if item is None and weights is None:
        raise unknown_name("backbone", name, BACKBONES)
    path = cached(name) if weights is None else Path(weights)
    if item is not None and not item.is_clip:
        raise WeightsError(
            f"{name} is no CLIP; {path} holds one. Pass the file that belongs to the name, or give "
            "the file a name of your own."
        )
    merges = read_merges(vocabulary(name, weights=path))
    net, text = build_clip(*convert_clip(load_file(path) if tensors is None else tensors))
    if item is not None:
        check_size(item, net.config, path)
    return ClipBackbone(name, net, text, tokenizer=Tokenizer(merges), device=device)


def random_clip(name: str, *, device: torch.device) -> ClipBackbone:
    """Build a CLIP with random weights and a vocabulary of bytes, for tests and benchmarks only.

    Args:
        name: "random-clipb16" and the like: size t, b or l, then the patch; t is a tiny one.
        device: where to compute.

    Returns:
        The backbone, the same in every process.

    Raises:
        UsageError: the name has another form.
    """
    match = RANDOM_CLIP.fullmatch(name)
    if match is None or not 1 <= int(match[2]) <= 224:
        raise UsageError(f"Expected a name such as random-clipb16, found {name!r}.")
    arch, depth, (dim, blocks, heads), projection = SIZES[match[1]]
    config = as_clip(replace(vit_config(arch, int(match[2])), depth=depth))
    tokenizer = Tokenizer()
    words = ClipTextConfig(tokenizer.size, dim=dim, depth=blocks, heads=heads)
    return ClipBackbone(
        name,
        random_clip_image(config, projection, seed=RANDOM_SEED),
        random_clip_text(words, projection, seed=RANDOM_SEED),
        tokenizer=tokenizer,
        device=device,
    )


def _holding(config: VitConfig, weights: Mapping[str, Tensor]) -> ClipImage:
    """Build the image tower that holds these weights, without a copy of them."""
    projection = weights["proj"].shape[1]
    with torch.device("meta"):  # its own weights are replaced at once
        net = ClipImage(config, projection)
    load_exactly(net, weights, what=str(config))
    return net.eval().requires_grad_(False)


def _hash(*parts: str) -> str:
    """Hash strings, and where each ends."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()
