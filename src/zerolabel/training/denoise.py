"""How a student learns from masks that nobody drew, and when it has learned enough.

The masks of a method are wrong here and there, and a network that is trained on them long enough
learns that, too; before, it learns what they have in common. When that turns can be seen without
any label: the loss on masks of images that it does not learn from stops falling.

Source: pseudo-mask de-noising of Kumar et al., "DatUS^2", 2024, section III-F, which names the
network only. That networks fit what is common before they fit what is wrong: Arpit et al., "A
closer look at memorization in deep networks", 2017; early stopping: Prechelt 1998. What is common
first is the common categories, at the expense of the rare ones: Menon et al., "Long-tail learning
via logit adjustment", 2021.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from zerolabel.networks.deeplabv3 import DeepLabV3
from zerolabel.networks.light import Light
from zerolabel.store import below
from zerolabel.training.supervised import LabelTrainer, SupervisedTraining, padded
from zerolabel.types import IGNORE

NET, BEST = "net/", "best/"  # prefixes of the weights in a state
LEAST = 0.1  # of an equal share of the pixels: a category with less counts as if it had so much


def handicaps(pixels: Sequence[int], *, balance: float) -> Tensor:
    """How much of a category's score its share of the masks accounts for.

    Args:
        pixels: of each of K categories in the masks.
        balance: 1 for all of it, 0 for nothing.

    Returns:
        float32 (K,), balance x log of the share over an equal one, which is no less than `LEAST`.

    Source:
        Menon et al. 2021, equation 10: with these added to its scores while it learns, a network
        says without them what a category is like, not how common it is.
    """
    counts = torch.tensor(pixels, dtype=torch.float64)
    shares = counts * len(counts) / counts.sum().clamp_min(1)
    return (balance * shares.clamp_min(LEAST).log()).float()


class DenoiseTrainer(LabelTrainer):
    """A student that is told how it does on masks that it does not learn from.

    Attributes:
        net: trained in place, but for its body if `config.tuned` is False.
        patience: judgements without a lower loss after which it stops.
        best: its weights when the loss was lowest; empty before the first judgement.
        held: from step to loss, all judgements.
    """

    def __init__(
        self,
        net: DeepLabV3 | Light,
        config: SupervisedTraining,
        *,
        patience: int,
        handicaps: Tensor | None = None,
    ) -> None:
        self._body = net.encoder if isinstance(net, Light) else net.backbone
        self._body.requires_grad_(config.tuned)
        super().__init__(config, net)
        self.net, self.patience = net, patience
        self._handicaps = None if handicaps is None else handicaps.to(self.device)[:, None, None]
        self.best: dict[str, Tensor] = {}
        self.held: dict[int, float] = {}

    @property
    def chosen(self) -> int:
        """The step of the lowest loss, the first one of several; that of now without judgement."""
        return min(self.held, key=self._loss_at) if self.held else self.step

    @property
    def stopped(self) -> bool:
        """Whether the loss has not fallen for so many judgements."""
        since = [step for step in self.held if step > self.chosen]
        return len(since) >= self.patience

    def learn(self, images: Tensor, labels: Tensor) -> float:
        """See `LabelTrainer.learn`; where no pixel counts nothing changes, nor does a norm."""
        if not bool((labels != IGNORE).any()):
            self.step += 1
            return 0.0
        return super().learn(images, labels)

    def judge(self, loss: float) -> None:
        """Take note of the loss on masks that were not learned from; keep the weights if it is low.

        Args:
            loss: of this step; NaN counts as infinite.
        """
        self.held[self.step] = loss
        if self.chosen == self.step:
            self.best = {k: v.detach().clone() for k, v in self.net.state_dict().items()}

    def weights(self) -> dict[str, Tensor]:
        """The weights of now, by the names of the network."""
        return {f"{NET}{k}": v for k, v in self.net.state_dict().items()}

    def result(self) -> dict[str, Tensor]:
        """The weights when the loss was lowest, by the names of the network."""
        return self.best or dict(self.net.state_dict())

    def state(self) -> dict[str, Tensor]:
        """See `LabelTrainer.state`."""
        held = torch.tensor(list(self.held.items()), dtype=torch.float64).reshape(-1, 2)
        kept = {f"{BEST}{k}": v for k, v in self.best.items()}
        return super().state() | kept | {"held": held}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """See `LabelTrainer.restore`."""
        super().restore(state)
        self.best = {k: v.clone() for k, v in below(state, BEST).items()}
        self.held = {int(step): loss for step, loss in state["held"].tolist()}

    def _loss_at(self, step: int) -> float:
        loss = self.held[step]
        return math.inf if math.isnan(loss) else loss

    def _take(self, state: Mapping[str, Tensor]) -> None:
        self.net.load_state_dict(below(state, NET))

    def _train(self, *, on: bool) -> None:
        self.net.train(on)
        self._body.train(on and self.config.tuned)  # norms of a frozen one do not learn, either

    def _logits(self, images: Tensor) -> tuple[Tensor, tuple[int, int]]:
        x = padded(images, self.net.patch)
        scores: Tensor = self.net(x)
        if self._handicaps is not None:
            scores = scores + self._handicaps
        return scores, (x.shape[2], x.shape[3])
