"""How networks learn from labels, Segmenter above all: cross-entropy of every pixel.

Shapes: `B` images, `H W` pixels, `h w` patch grid, `K` classes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zerolabel.errors import UsageError, unknown_name
from zerolabel.networks.transformer import seeded
from zerolabel.networks.vit import ViT
from zerolabel.ops.strip_loss import upsampled_cross_entropy
from zerolabel.store import below
from zerolabel.training import optimiser
from zerolabel.training.schedule import Plateau, Poly

SCHEDULES = ("poly", "plateau")


@dataclass(frozen=True, kw_only=True)
class SupervisedTraining:
    """Settings; the defaults are the original project's, but for the length.

    Attributes:
        iterations: steps of the training.
        batch: images per step.
        lr: learning rate at the start.
        decay: weight decay of matrices.
        optimiser: "sgd" (momentum 0.9) or "adamw".
        schedule: "poly" (power 0.9, down to 1e-5, by step) or "plateau" (a tenth whenever the loss
            of an epoch has not fallen for eleven epochs).
        warmup: steps over which the learning rate rises, with "poly" only.
        tuned: whether the encoder learns, too.
        drop_path: share of the images whose residual branches the encoder's last block drops.
        dropout: share that the encoder drops of tokens, attention and linear layers; the decoder
            has its own.
        amp: let the networks compute in bfloat16.
        seed: fixes what is dropped.
    """

    iterations: int = 1000
    batch: int = 8
    lr: float = 1e-3
    decay: float = 0.0
    optimiser: str = "sgd"
    schedule: str = "poly"
    warmup: int = 0
    tuned: bool = True
    drop_path: float = 0.1
    dropout: float = 0.0
    amp: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if self.schedule not in SCHEDULES:
            raise unknown_name("schedule", self.schedule, SCHEDULES)
        if self.optimiser not in optimiser.OPTIMISERS:
            raise unknown_name("optimiser", self.optimiser, optimiser.OPTIMISERS)
        for name in ("drop_path", "dropout"):
            if not 0 <= getattr(self, name) < 1:
                found = f"{name} {getattr(self, name)}"
                raise UsageError(f"Expected a share from 0 up to below 1, found {found}.")
        if min(self.iterations, self.batch) < 1 or self.lr <= 0 or self.decay < 0:
            found = f"{self.iterations}, {self.batch}, {self.lr} and {self.decay}"
            raise UsageError(
                "Expected iterations and batch of 1 or more, a learning rate above 0 and a decay "
                f"from 0; found {found}."
            )


class LabelTrainer(ABC):
    """Networks that score classes, and their optimiser; which they are is said by who inherits.

    Attributes:
        config: the settings.
        step: steps done.
        device: where the networks are.
        plateau: what the schedule "plateau" has seen.
    """

    def __init__(self, config: SupervisedTraining, *learners: nn.Module) -> None:
        self.config, self.step = config, 0
        self.optimiser = optimiser.make(
            config.optimiser, *learners, lr=config.lr, decay=config.decay
        )
        self.plateau = Plateau()
        self.device = next(learners[-1].parameters()).device

    @abstractmethod
    def weights(self) -> dict[str, Tensor]:
        """What was learned so far, by names that none else in a state has."""

    @abstractmethod
    def _take(self, state: Mapping[str, Tensor]) -> None:
        """Give the networks what `weights` returned; there may be more in it."""

    @abstractmethod
    def _train(self, *, on: bool) -> None:
        """Set the networks to training mode, or to evaluation mode."""

    @abstractmethod
    def _logits(self, images: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Scores (B, K, h, w) of images on the device, and the pixels that the grid covers."""

    def learn(self, images: Tensor, labels: Tensor) -> float:
        """Do one step.

        Args:
            images: as the network takes them, normalised, float32 (B, 3, H, W).
            labels: uint8 or int64 (B, H, W), 0..K-1 or 255 for pixels that do not count.

        Returns:
            The mean loss of the pixels that count, before the step; 0 if none do.
        """
        self._train(on=True)
        for group in self.optimiser.param_groups:
            group["lr"] = self.lr()
        # drawn by the step alone, so that an interrupted training drops the same when it goes on
        with seeded(self.config.seed * 1_000_003 + self.step, device=self.device):
            loss = self._loss(images, labels)
        self.optimiser.zero_grad(set_to_none=True)
        if loss.requires_grad:
            loss.backward()  # type: ignore[no-untyped-call]
            self.optimiser.step()
        self.step += 1
        return loss.item()

    def measure(self, images: Tensor, labels: Tensor) -> float:
        """Compute the loss as `learn` does, but nothing is dropped and nothing learns."""
        self._train(on=False)
        with torch.no_grad():
            return self._loss(images, labels).item()

    def lr(self) -> float:
        """The learning rate of the next step."""
        c = self.config
        if c.schedule == "plateau":
            return c.lr * self.plateau.scale
        return Poly(c.lr, warmup=c.warmup).at(self.step, c.iterations)

    def state(self) -> dict[str, Tensor]:
        """Everything that `restore` needs, as tensors of a flat dict."""
        seen = [self.plateau.best, self.plateau.bad, self.plateau.scale]
        kept = {f"optimiser/{k}": v for k, v in optimiser.state_of(self.optimiser).items()}
        kept |= {"step": torch.tensor(self.step)}
        return self.weights() | kept | {"plateau": torch.tensor(seen, dtype=torch.float64)}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on where another trainer of the same settings stopped."""
        self._take(state)
        optimiser.restore(self.optimiser, below(state, "optimiser/"))
        self.step = int(state["step"])
        best, bad, scale = state["plateau"].tolist()
        self.plateau = Plateau(best=best, bad=int(bad), scale=scale)

    def _loss(self, images: Tensor, labels: Tensor) -> Tensor:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.amp):
            logits, cover = self._logits(images.to(self.device))
        return upsampled_cross_entropy(logits, labels.to(self.device), cover=cover)


class SupervisedTrainer(LabelTrainer):
    """An encoder, a decoder and their optimiser; see `LabelTrainer`.

    Attributes:
        encoder: trained in place, unless it is frozen.
        decoder: trained in place.
    """

    def __init__(self, encoder: ViT, decoder: nn.Module, config: SupervisedTraining) -> None:
        self.encoder, self.decoder = encoder, decoder
        encoder.requires_grad_(config.tuned)
        if config.tuned:
            encoder.regularise(drop_path=config.drop_path, dropout=config.dropout)
        super().__init__(config, *((encoder, decoder) if config.tuned else (decoder,)))

    def weights(self) -> dict[str, Tensor]:
        """What was learned, by the names of the original project: "encoder.*", "decoder.*"."""
        learned = {f"decoder.{k}": v for k, v in self.decoder.state_dict().items()}
        if self.config.tuned:
            learned |= {f"encoder.{k}": v for k, v in self.encoder.state_dict().items()}
        return learned

    def _take(self, state: Mapping[str, Tensor]) -> None:
        self.decoder.load_state_dict(below(state, "decoder."))
        if self.config.tuned:
            self.encoder.load_state_dict(below(state, "encoder."))

    def _train(self, *, on: bool) -> None:
        self.encoder.train(on and self.config.tuned)
        self.decoder.train(on)

    def _logits(self, images: Tensor) -> tuple[Tensor, tuple[int, int]]:
        x = padded(images, self.encoder.config.patch)
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.config.tuned):
            _, tokens = self.encoder.forward_all(x)  # (B, h, w, D)
        return self.decoder(tokens), (x.shape[2], x.shape[3])


def padded(images: Tensor, patch: int) -> Tensor:
    """Pad normalised images (B, 3, H, W) with zeros, at the bottom and right, to whole patches."""
    H, W = images.shape[2:]
    return F.pad(images, (0, -W % patch, 0, -H % patch))
