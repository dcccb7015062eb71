"""A residual network that describes crops, beside the backbone that saw the images.

The branch that DatUS2 compares its transformer with: a ResNet-50 of MoCo v2, whose last map is
averaged over all locations.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from zerolabel.backbones import resnet_layouts
from zerolabel.backbones.registry import IMAGENET_MEAN, IMAGENET_STD
from zerolabel.backbones.weights import digest, load_file
from zerolabel.errors import UsageError, WeightsError, unknown_name
from zerolabel.networks.resnet import ResNet

NORMS = {  # name -> mean and deviation of colours 0..1 that crops are brought to
    "imagenet": (IMAGENET_MEAN, IMAGENET_STD),
    "suim": ((0.3, 0.3, 0.2), (0.3, 0.3, 0.2)),
}
WANTED = "a ResNet-50 that learned without labels, such as MoCo v2's moco_v2_800ep_pretrain.pth.tar"


class CropEncoder:
    """A residual network that averages its last map.

    Attributes:
        digest: hash of all that its vectors depend on, apart from the crop.
        note: what the user should know about the weights; empty for nothing.
    """

    def __init__(self, net: ResNet, *, norm: str, digest: str, note: str = "") -> None:
        self._net = net
        self._mean, self._std = (torch.tensor(colour)[:, None, None] for colour in NORMS[norm])
        self.digest = f"{digest}-{norm}"
        self.note = note

    def __call__(self, crops: Tensor) -> Tensor:
        """Describe crops.

        Args:
            crops: uint8 RGB (n, 3, S, S).

        Returns:
            float32 (n, D) on the crops' device, not normalised; D = 2048 for a ResNet-50.
        """
        device = next(self._net.parameters()).device
        x = crops.to(device).float() / 255
        x = (x - self._mean.to(device)) / self._std.to(device)
        with torch.inference_mode():
            pooled: Tensor = self._net(x, {"pooled"})["pooled"]
        return pooled.clone().to(crops.device)


def load_crop_encoder(path: str, *, norm: str, device: torch.device | str = "cpu") -> CropEncoder:
    """Load a network that describes crops.

    Args:
        path: a file with a residual network in any layout of `resnet_layouts`, which decides its
            layers; of a MoCo checkpoint the query encoder.
        norm: a key of `NORMS`.
        device: where it computes.

    Returns:
        The encoder, frozen.

    Raises:
        UsageError: there is no such norm.
        WeightsError: the file is missing or damaged, or holds no residual network.
    """
    if norm not in NORMS:
        raise unknown_name("crop_norm", norm, NORMS)
    if not Path(path).is_file():
        raise WeightsError(
            f"crop_weights={path} is not a file. Expected the weights of {WANTED}: put them there, "
            "or give --set crop_weights=FILE."
        )
    state, told = resnet_layouts.without_classifier(load_file(path))
    net = resnet_layouts.build(state)
    note = ""
    if told:
        note = (
            f"crops: {Path(path).name} comes with a classifier of {told} classes; if those "
            "were labels, the categories are not without labels any more"
        )
    return CropEncoder(net.to(device), norm=norm, digest=digest(state), note=note)


def check_crop_encoder(name: str, weights: str, norm: str) -> None:
    """Refuse settings that do not belong together, before anything is read.

    Args:
        name: "backbone" or "resnet".
        weights: a file, or empty.
        norm: a key of `NORMS`.

    Raises:
        UsageError: the first that is found.
    """
    if name not in ("backbone", "resnet"):
        raise unknown_name("crop_encoder", name, ("backbone", "resnet"))
    if norm not in NORMS:
        raise unknown_name("crop_norm", norm, NORMS)
    if name == "resnet" and not weights:
        raise UsageError(
            "crop_encoder=resnet describes crops by a network of your own, and one with random "
            f"weights would tell nothing: expected --set crop_weights=FILE, weights of {WANTED}."
        )
    if name == "backbone" and (weights or norm != "imagenet"):
        raise UsageError(
            "crop_weights and crop_norm are those of a residual network, and crop_encoder=backbone "
            "has none. Leave them out, or give --set crop_encoder=resnet."
        )
