"""How a U-Net learns from labels: cross-entropy of every labelled pixel.

Shapes: `B` images, `C` bands, `H W` pixels, `K` classes.

Source: Ronneberger et al., "U-Net: convolutional networks for biomedical image segmentation", 2015,
without its weights for borders between cells.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from zerolabel.errors import UsageError
from zerolabel.networks.transformer import seeded
from zerolabel.networks.unet import UNet
from zerolabel.store import below
from zerolabel.training import optimiser
from zerolabel.training.schedule import Cosine
from zerolabel.types import IGNORE

WHITE = 255.0  # of images


@dataclass(frozen=True, kw_only=True)
class UnetTraining:
    """Settings.

    Attributes:
        iterations: steps of the training.
        batch: images per step.
        lr: learning rate at the start; half a cosine down to 0.
        decay: weight decay of matrices.
        seed: fixes what is dropped.
    """

    iterations: int = 1000
    batch: int = 8
    lr: float = 0.003
    decay: float = 0.01
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.iterations, self.batch) < 1 or self.lr <= 0 or self.decay < 0:
            found = f"{self.iterations}, {self.batch}, {self.lr} and {self.decay}"
            raise UsageError(
                "Expected iterations and batch of 1 or more, lr above 0 and decay from 0, found "
                f"{found}."
            )


class UnetTrainer:
    """A U-Net and its optimiser.

    Attributes:
        net: trained in place.
        config: the settings.
        device: where it is.
        step: steps done.
    """

    def __init__(self, net: UNet, config: UnetTraining, device: torch.device) -> None:
        self.net, self.config, self.device, self.step = net.to(device), config, device, 0
        self.optimiser = optimiser.make("adamw", net, lr=config.lr, decay=config.decay)

    def learn(self, images: Tensor, labels: Tensor) -> float:
        """Do one step.

        Args:
            images: float32 (B, C, H, W) of 0..255.
            labels: int64 (B, H, W), 0..K-1 or 255 = ignore.

        Returns:
            The loss of the batch, before the step; 0 if no pixel has a label.
        """
        c = self.config
        known = labels.to(self.device)
        if not bool((known != IGNORE).any()):
            self.step += 1
            return 0.0
        self.net.train()
        for group in self.optimiser.param_groups:
            group["lr"] = Cosine(c.lr, 0.0).at(self.step, c.iterations)
        # drawn by the step alone, so that an interrupted training drops the same when it goes on
        with seeded(c.seed * 1_000_003 + self.step, device=self.device):
            logits = self.net(images.to(self.device) / WHITE)
        loss = F.cross_entropy(logits, known, ignore_index=IGNORE)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimiser.step()
        self.step += 1
        return loss.item()

    def weights(self) -> dict[str, Tensor]:
        """What was learned, by the names of the network."""
        return dict(self.net.state_dict())

    def state(self) -> dict[str, Tensor]:
        """Everything that `restore` needs, as tensors of a flat dict."""
        kept = {f"weights/{k}": v for k, v in self.weights().items()}
        kept |= {f"optimiser/{k}": v for k, v in optimiser.state_of(self.optimiser).items()}
        return {**kept, "step": torch.tensor(self.step)}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on where another trainer of the same settings stopped."""
        self.net.load_state_dict(below(state, "weights/"))
        optimiser.restore(self.optimiser, below(state, "optimiser/"))
        self.step = int(state["step"])
