"""The probes of MaskContrast and STEGO on frozen features, with the settings they published.

A 1x1 convolution on the patch grid is a linear layer on every token. Nothing is encoded here: a
job hands over the tokens of each step. Shapes: `B` images, `h w` patch grid, `D` channels, `H W`
pixels, `C` classes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zerolabel.types import IGNORE


@dataclass(frozen=True, kw_only=True)
class MaskContrastLinear:
    """How MaskContrast trains its linear probe (Van Gansbeke et al., ICCV 2021, and its code).

    Attributes:
        size: (H, W) in pixels of the views to train on and of the images to choose the epoch by.
        epochs: passes over the training images.
        batch: images per step.
        lr: learning rate at first.
        drop_after: the learning rate is `drop` times that in epochs above this, counted from 0.
        drop: see there.
        momentum: of SGD, without Nesterov's.
        weight_decay: of SGD.
        deviation: of the normal distribution that weights start from; biases start at 0.
        flip: probability of a mirrored view.
        angle: largest turn, degrees.
        scale: least and largest zoom.
    """

    size: tuple[int, int] = (512, 512)
    epochs: int = 60
    batch: int = 16
    lr: float = 0.1
    drop_after: int = 25
    drop: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 1e-4
    deviation: float = 0.01
    flip: float = 0.5
    angle: float = 5.0
    scale: tuple[float, float] = (0.75, 1.25)


@dataclass(frozen=True, kw_only=True)
class StegoProbes:
    """How STEGO trains its two probes (Hamilton et al., ICLR 2022, and its code).

    Attributes:
        train_size: pixels a side of the middle crop to train on.
        size: of the crop that is scored.
        steps: optimiser steps; with `batch` the training budget.
        batch: images per step.
        lr: of Adam, for both probes.
        mirrored: score the mean of the features of an image and its mirror image.
    """

    train_size: int = 224
    size: int = 320
    steps: int = 5000
    batch: int = 16
    lr: float = 5e-3
    mirrored: bool = True


class Probe:
    """Parameters with their optimiser; both leave and return as plain tensors, to be resumed."""

    def __init__(
        self, parameters: Mapping[str, Tensor], optimiser: type[Any], **settings: Any
    ) -> None:
        """Start to train.

        Args:
            parameters: where to start, by name.
            optimiser: a class of `torch.optim`.
            settings: of the optimiser.
        """
        self.parameters = {name: nn.Parameter(value) for name, value in parameters.items()}
        self.optimiser = optimiser(list(self.parameters.values()), **settings)

    def to(self, device: torch.device) -> None:
        """Move the parameters, before the first step."""
        for parameter in self.parameters.values():
            parameter.data = parameter.data.to(device)

    def state(self) -> dict[str, Tensor]:
        """Copy everything that training changes."""
        found = {name: value.detach().clone() for name, value in self.parameters.items()}
        for i, entries in self.optimiser.state_dict()["state"].items():
            found |= {
                f"optimiser.{i}.{key}": value.clone()
                for key, value in entries.items()
                if value is not None
            }
        return found

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a state, of which a state of the parameters alone is enough to predict."""
        entries: dict[int, dict[str, Tensor]] = {}
        with torch.no_grad():
            for name, value in state.items():
                if name in self.parameters:
                    self.parameters[name].copy_(value)
                else:
                    _, i, key = name.split(".")
                    # A count of steps has no dimension, which not every file can hold.
                    value = value.reshape(()) if key == "step" else value
                    entries.setdefault(int(i), {})[key] = value.clone()
        groups = self.optimiser.state_dict()["param_groups"]
        self.optimiser.load_state_dict({"state": entries, "param_groups": groups})


class MaskContrastProbe(Probe):
    """One linear layer, trained by SGD on augmented images."""

    def __init__(self, config: MaskContrastLinear, dim: int, classes: int, *, seed: int) -> None:
        """Start to train.

        Args:
            config: settings.
            dim: D.
            classes: C.
            seed: fixes where the layer starts.
        """
        self.config = config
        generator = torch.Generator().manual_seed(seed)
        weight = torch.randn(classes, dim, generator=generator) * config.deviation
        super().__init__(
            {"weight": weight, "bias": torch.zeros(classes)},
            torch.optim.SGD,
            lr=config.lr,
            momentum=config.momentum,
            weight_decay=config.weight_decay,
        )

    def begin(self, epoch: int) -> None:
        """Set the learning rate of an epoch, counted from 0."""
        config = self.config
        rate = config.lr * (config.drop if epoch > config.drop_after else 1)
        for group in self.optimiser.param_groups:
            group["lr"] = rate

    def step(self, tokens: Tensor, labels: Tensor) -> float:
        """Learn from a batch.

        Args:
            tokens: float (B, h, w, D).
            labels: int64 (B, H, W), 255 = ignore.

        Returns:
            The mean cross-entropy over the labelled pixels.
        """
        self.optimiser.zero_grad()
        loss = _learn(tokens, labels, self.parameters["weight"], self.parameters["bias"])
        self.optimiser.step()
        return loss

    def predict(self, tokens: Tensor, size: tuple[int, int]) -> Tensor:
        """Classify the pixels of one image: (h, w, D) -> int64 (*size)."""
        return _classify(tokens, self.parameters["weight"], self.parameters["bias"], size)


class StegoProbe(Probe):
    """A linear layer and a set of prototypes, trained side by side by Adam."""

    def __init__(self, config: StegoProbes, dim: int, classes: int, *, seed: int) -> None:
        """Start to train.

        Args:
            config: settings.
            dim: D.
            classes: C, also the number of prototypes.
            seed: fixes where both start.
        """
        generator = torch.Generator().manual_seed(seed)
        bound = 1 / math.sqrt(dim)  # as every convolution starts in torch
        rows = (torch.rand(classes, dim + 1, generator=generator) * 2 - 1) * bound
        super().__init__(
            {
                "weight": rows[:, :dim].contiguous(),
                "bias": rows[:, dim].contiguous(),
                "prototypes": torch.randn(classes, dim, generator=generator),
            },
            torch.optim.Adam,
            lr=config.lr,
        )

    def step(self, tokens: Tensor, labels: Tensor) -> tuple[float, float]:
        """Learn from a batch; the prototypes never see the labels.

        Args:
            tokens: float (B, h, w, D).
            labels: int64 (B, H, W), 255 = ignore.

        Returns:
            The mean cross-entropy of the linear layer over the labelled pixels, and the loss of the
            prototypes: minus the mean over patches of the cosine to the nearest one.
        """
        self.optimiser.zero_grad()
        linear = _learn(tokens, labels, self.parameters["weight"], self.parameters["bias"])
        with torch.enable_grad():
            loss = -self._cosines(tokens.flatten(0, 2)).amax(1).mean()
            loss.backward()  # type: ignore[no-untyped-call]
        self.optimiser.step()
        return linear, loss.item()

    def predict(self, tokens: Tensor, size: tuple[int, int]) -> Tensor:
        """Classify the pixels of one image by the layer: (h, w, D) -> int64 (*size)."""
        return _classify(tokens, self.parameters["weight"], self.parameters["bias"], size)

    def cluster(self, tokens: Tensor, size: tuple[int, int]) -> Tensor:
        """Find the prototype of every pixel: (h, w, D) -> int64 (*size).

        As published, tokens are upsampled before they are compared. A pixel's token is a mean of
        tokens, whose length does not change which cosine is largest, so upsampling the products
        with unit prototypes gives the same without tokens for every pixel.
        """
        with torch.no_grad():
            units = F.normalize(self.parameters["prototypes"], dim=1)
            return _classify(tokens, units, units.new_zeros(len(units)), size)

    def _cosines(self, x: Tensor) -> Tensor:
        """(N, D) -> (N, C)."""
        return F.normalize(x.float(), dim=1) @ F.normalize(self.parameters["prototypes"], dim=1).T


def _scores(tokens: Tensor, weight: Tensor, bias: Tensor, size: tuple[int, int]) -> Tensor:
    """Linear layer, then bilinear to pixels: (h, w, D) -> (1, C, *size)."""
    scores = F.linear(tokens.float(), weight, bias).permute(2, 0, 1)[None]
    return F.interpolate(scores, size=size, mode="bilinear", align_corners=False)


def _learn(tokens: Tensor, labels: Tensor, weight: Tensor, bias: Tensor) -> float:
    """Add the gradient of the mean cross-entropy over all labelled pixels of a batch.

    Image by image: the scores of 16 images of 512 x 512 pixels would take gigabytes.
    """
    count = (labels != IGNORE).sum().clamp_min(1)
    total = 0.0
    with torch.enable_grad():
        for image, goal in zip(tokens, labels.to(tokens.device), strict=True):
            scores = _scores(image, weight, bias, (goal.shape[0], goal.shape[1]))
            loss = F.cross_entropy(scores, goal[None], ignore_index=IGNORE, reduction="sum")
            loss = loss / count
            loss.backward()  # type: ignore[no-untyped-call]
            total += loss.item()
    return total


def _classify(tokens: Tensor, weight: Tensor, bias: Tensor, size: tuple[int, int]) -> Tensor:
    with torch.no_grad():
        return _scores(tokens, weight, bias, size)[0].argmax(0)
