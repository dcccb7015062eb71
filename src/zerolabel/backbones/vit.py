"""DINO and DINOv2 as frozen backbones: uint8 images in, features out."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from zerolabel.backbones.layouts import build, convert, infer_config
from zerolabel.backbones.registry import (
    BACKBONES,
    IMAGENET_MEAN,
    IMAGENET_STD,
    VIT_GIVES,
    Colour,
    Entry,
)
from zerolabel.backbones.weights import cached, digest, load_file
from zerolabel.errors import DataError, UsageError, WeightsError, unknown_name
from zerolabel.networks.vit import ARCHITECTURES, ViT, VitConfig, random_vit, vit_config
from zerolabel.types import Features

RANDOM = re.compile(r"random-vit([tsbl])(\d+)")
RANDOM_SEED = 0


class VitBackbone:
    """A frozen vision transformer with the normalisation it was trained with.

    Attributes:
        name: what the user called it.
        gives: fields of `Features` it can compute.
        learns: images it wants to learn from: none, it comes trained.
        stride: pixels per cell of the feature grid, the patch.
        dim: channels D of a token.
        digest: hash of the weights by their original names, equal for every file layout.
        device: where it computes and leaves its results.
    """

    gives = VIT_GIVES
    learns = 0

    def __init__(
        self,
        name: str,
        net: ViT,
        *,
        device: torch.device | str = "cpu",
        mean: Colour = IMAGENET_MEAN,
        std: Colour = IMAGENET_STD,
    ) -> None:
        self.name = name
        self.digest = digest(net.state_dict())
        self.device = torch.device(device)
        self.net = net.to(self.device).eval().requires_grad_(False)
        self.stride = net.config.patch
        self.dim = net.config.dim
        self._normalise_by(mean, std)

    def encode(self, images: Tensor, *, want: Collection[str]) -> Features:
        """Compute features of a batch, and nothing that was not asked for.

        Args:
            images: uint8 RGB (B, 3, H, W), at least one patch high and wide; what exceeds a
                multiple of the patch is cut off at the bottom and the right.
            want: names out of `gives`.

        Returns:
            The features asked for, float32, on the backbone's device.

        Raises:
            UsageError: an unknown feature, or images of another type or shape.
            DataError: images smaller than a patch.
        """
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3:
            found = f"{images.dtype} {tuple(images.shape)}"
            raise UsageError(f"Expected uint8 images (B, 3, H, W), found {found}.")
        if min(images.shape[-2:]) < self.stride:
            raise DataError(
                f"{self.name} needs images of at least {self.stride}x{self.stride} pixels, found "
                f"{images.shape[-2]}x{images.shape[-1]}. Enlarge them first."
            )
        # Not inference_mode: heads are trained on these features, and autograd refuses to save its
        # tensors for the backward pass.
        with torch.no_grad():
            return self.features(self.prepare(images), want)

    def features(self, x: Tensor, want: Collection[str]) -> Features:
        """Run the network on what `prepare` returned, for the names in `want`."""
        out: Features = self.net(x, want=want)
        return out

    def within(self, context: Tensor, masks: Tensor) -> Tensor:
        """Describe regions of an image without cutting them out.

        In the last block CLS attends to itself and to the patches of one region; all it saw before,
        it saw of the whole image. Keys and values are computed once for all regions.

        Args:
            context: `Features.context` of one image, float32 (T, D).
            masks: patches of every region, bool (R, h, w).

        Returns:
            CLS token of every region after the last norm, float32 (R, D).

        Raises:
            UsageError: masks of another type, or of another grid than the image's.
        """
        if masks.dtype != torch.bool:
            raise UsageError(f"Expected masks of type torch.bool, found {masks.dtype}.")
        with torch.no_grad():
            return self.net.within(context.to(self.device), masks.to(self.device))

    def prepare(self, images: Tensor) -> Tensor:
        """Bring uint8 RGB images (B, 3, H, W) to the device, as the network was trained on them."""
        return images.to(self.device).float().div_(255).sub_(self._mean).div_(self._std)

    def _normalise_by(self, mean: Colour, std: Colour) -> None:
        self._mean = torch.tensor(mean, device=self.device)[:, None, None]  # (3, 1, 1)
        self._std = torch.tensor(std, device=self.device)[:, None, None]

    def learn(self, batches: Iterable[Tensor], *, seed: int) -> VitBackbone:
        """Do nothing: this backbone comes trained."""
        return self

    def state(self) -> dict[str, Tensor]:
        """Nothing: a saved model refers to these weights by name and digest."""
        return {}

    def restore(self, state: Mapping[str, Tensor]) -> VitBackbone:
        """Do nothing: `state` is empty."""
        return self


def load_vit(
    name: str,
    *,
    weights: str | Path | None,
    device: torch.device,
    tensors: Mapping[str, Tensor] | None = None,
) -> VitBackbone:
    """Load a vision transformer from a weights file.

    Args:
        name: a registry name; with a weights file any name, and the network is told from the file.
        weights: the file; the cached one of the registry's entry by default.
        device: where to compute.
        tensors: what the file holds, where it was read before.

    Returns:
        The backbone.

    Raises:
        UsageError: the name is not in the registry and no file is given.
        WeightsError: the weights are not cached, cannot be read, or are of another network.
    """
    item = BACKBONES.get(name)
    if item is None and weights is None:
        raise unknown_name("backbone", name, BACKBONES)
    path = cached(name) if weights is None else Path(weights)
    state = convert(load_file(path) if tensors is None else tensors)
    config = infer_config(state)
    if item is None:
        return VitBackbone(name, build(state, config), device=device)
    check_size(item, config, path)
    net = build(state, replace(config, pos_interp=item.pos_interp))
    return VitBackbone(name, net, device=device, mean=item.mean, std=item.std)


def random_backbone(name: str, *, device: torch.device) -> VitBackbone:
    """Build a backbone with random weights, for tests and benchmarks only.

    Its tokens are nearly identical within an image, so no method finds anything with it.

    Args:
        name: "random-vits16" and the like: size t, s, b or l, then the patch.
        device: where to compute.

    Returns:
        The backbone, the same in every process.

    Raises:
        UsageError: the name has another form.
    """
    match = RANDOM.fullmatch(name)
    if match is None or not 1 <= int(match[2]) <= 224:
        raise UsageError(f"Expected a name such as random-vits16, found {name!r}.")
    arch = next(arch for arch in ARCHITECTURES if arch.startswith(f"vit-{match[1]}"))
    net = random_vit(vit_config(arch, int(match[2])), seed=RANDOM_SEED)
    return VitBackbone(name, net, device=device)


def check_size(item: Entry, config: VitConfig, path: Path) -> None:
    """Complain if a file does not hold the network that its name promises.

    Args:
        item: what the name promises.
        config: what was found.
        path: the file.

    Raises:
        WeightsError: patch, channels, blocks or registers differ.
    """
    size = ARCHITECTURES[item.arch]
    expected = (item.patch, size.dim, size.depth, item.registers)
    found = (config.patch, config.dim, config.depth, config.registers)
    if expected != found:
        words = "patch {}, {} channels, {} blocks, {} registers"
        raise WeightsError(
            f"{item.name} has {words.format(*expected)}; {path} has {words.format(*found)}. "
            "Pass the file that belongs to the name, or give the file a name of your own."
        )
