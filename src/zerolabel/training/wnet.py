"""How W-Net learns: cuts that part unlike pixels, and channels that images can be told from.

Each step first updates the encoder on the soft normalised cut, then the whole network on its
reconstruction (algorithm 1), or both at once on a weighted sum. Shapes: `B` images, `C` bands,
`H W` pixels, `K` channels.

Source: Xia and Kulis, "W-Net: a deep model for fully unsupervised image segmentation", 2017,
section 3; Mazumdar et al., "Context is all you need", section 3.1, for Adam and its rates.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from zerolabel.errors import UsageError, unknown_name
from zerolabel.networks.transformer import seeded
from zerolabel.networks.unet import WNet
from zerolabel.ops.ncut import Affinity, Weights, class_mean_ncut, soft_ncut, weights
from zerolabel.store import below
from zerolabel.training import optimiser
from zerolabel.training.optimiser import MOMENTUM
from zerolabel.training.schedule import Cosine

CHOICES = {
    "optimiser": ("sgd", "adam"),
    "update": ("alternate", "joint"),
    "ncut_scope": ("encoder", "all"),
    "ncut": ("pairwise", "class-mean"),
    "reduction": ("sum", "mean"),
    "schedule": ("step", "cosine"),
}
WHITE = 255.0  # of images


@dataclass(frozen=True, kw_only=True)
class WnetTraining:
    """Settings.

    Attributes:
        iterations: steps of the training.
        batch: images per step.
        lr, decoder_lr: learning rates at the start, of the encoder and of the decoder.
        optimiser: "sgd" (momentum 0.9) or "adam".
        schedule: of both rates: "step" (see `drop_every`), or "cosine" (half a cosine down to 0).
        drop_every: steps after which both rates are multiplied with `drop`; 0 for never.
        drop: see `drop_every`.
        update: "alternate" (the cut first, then the reconstruction, as published) or "joint" (both
            in one weighted sum).
        ncut_scope: what "alternate" makes of the two rates. "encoder", as published: `lr` is the
            encoder's in both updates, `decoder_lr` the decoder's. "all", as in the code of
            "Context is all you need": both updates are over all weights, that on the cut at `lr`
            and that on the reconstruction at `decoder_lr`. A cut has no slope in the decoder, whose
            weights it leaves as they were in both.
        ncut: "pairwise" (weights of pairs of pixels) or "class-mean" (weights relative to the mean
            of a channel).
        affinity: of pairs of pixels; "class-mean" takes its radius and its sigmas, that of values
            then for images of 0..1 (published are 4, 5 and 1, not the defaults).
        pooled: both sums of a channel run over all images of the batch, so that an image need not
            have every channel in it; else, as published, the cut is one of each image.
        ncut_weight, rec_weight: factors of the two losses; 0 leaves a loss out.
        reduction: "sum" adds squared errors over pixels and bands and takes the mean over images,
            "mean" is their mean over all. Adam takes either; SGD leaps away from a sum at any rate
            that suits the cut, and in a joint sum it outweighs the cut.
        seed: fixes what is dropped.
    """

    iterations: int = 1000
    batch: int = 8
    lr: float = 0.003
    decoder_lr: float = 0.004
    optimiser: str = "adam"
    schedule: str = "step"
    drop_every: int = 0
    drop: float = 0.1
    update: str = "alternate"
    ncut_scope: str = "encoder"
    ncut: str = "pairwise"
    affinity: Affinity = field(default_factory=Affinity)
    pooled: bool = False
    ncut_weight: float = 1.0
    rec_weight: float = 1.0
    reduction: str = "sum"
    seed: int = 0

    def __post_init__(self) -> None:
        for name, known in CHOICES.items():
            if getattr(self, name) not in known:
                raise unknown_name(name, getattr(self, name), known)
        if min(self.iterations, self.batch) < 1 or self.drop_every < 0:
            found = f"{self.iterations}, {self.batch} and {self.drop_every}"
            raise UsageError(
                f"Expected iterations and batch of 1 or more and drop_every from 0, found {found}."
            )
        if min(self.lr, self.decoder_lr, self.drop) <= 0:
            found = f"{self.lr}, {self.decoder_lr} and {self.drop}"
            raise UsageError(f"Expected lr, decoder_lr and drop above 0, found {found}.")
        if min(self.ncut_weight, self.rec_weight) < 0 or self.ncut_weight + self.rec_weight == 0:
            found = f"{self.ncut_weight} and {self.rec_weight}"
            raise UsageError(f"Expected weights of losses from 0, not both 0; found {found}.")


class WnetTrainer:
    """A W-Net and its optimisers, one for each update of a step.

    Attributes:
        net: trained in place.
        config: the settings.
        device: where it is.
        step: steps done.
        losses: "ncut" and "reconstruction" of the last step, without their weights.
    """

    def __init__(
        self,
        net: WNet,
        config: WnetTraining,
        device: torch.device,
        *,
        mean: Sequence[float] = (0.0,),
        deviation: Sequence[float] = (WHITE,),
    ) -> None:
        """Bring everything to the device.

        Args:
            net: the network.
            config: the settings.
            device: where it shall learn.
            mean: of values 0..255, per band or one for all; what the network sees is images less
                this, over the deviation.
            deviation: likewise, above 0; the default brings images to 0..1.

        Raises:
            UsageError: a deviation that is not above 0, or a number of them that fits no image.
        """
        self.net, self.config, self.device, self.step = net.to(device), config, device, 0
        self.losses: dict[str, float] = {}
        self._factors = {"ncut": config.ncut_weight, "reconstruction": config.rec_weight}
        bands = net.encoder.config.bands
        if {len(mean), len(deviation)} - {1, bands} or min(deviation) <= 0:
            raise UsageError(
                f"Expected means and deviations above 0 of 1 or {bands} bands, found "
                f"{list(mean)} and {list(deviation)}."
            )
        self._mean = torch.tensor(list(mean), device=device)[:, None, None]
        self._deviation = torch.tensor(list(deviation), device=device)[:, None, None]
        self._optimisers = self._make()

    def normalise(self, images: Tensor) -> Tensor:
        """What the network sees of images of 0..255, float32 (B, C, H, W)."""
        return (images.to(self.device) - self._mean) / self._deviation

    def learn(self, images: Tensor, *, pairs: Weights | None = None) -> float:
        """Do one step.

        Args:
            images: float32 (B, C, H, W) of 0..255.
            pairs: `ops.ncut.weights` of these images, where they are known from an earlier step.

        Returns:
            The weighted sum of both losses, each as it was before its own update.

        Raises:
            UsageError: a loss is no longer finite; no weight has moved by it.
        """
        self.net.train()
        for made in self._optimisers.values():
            for group in made.param_groups:
                group["lr"] = group["start"] * self._share()
        x = self.normalise(images)
        cut = _Cut(self.config, images.to(self.device), pairs)
        # drawn by the step alone, so that an interrupted training drops the same when it goes on
        with seeded(self.config.seed * 1_000_003 + self.step, device=self.device):
            if self.config.update == "joint":
                self._joint(x, cut)
            else:
                self._alternate(x, cut)
        self.step += 1
        return sum(self._factors[name] * loss for name, loss in self.losses.items())

    def lr(self) -> float:
        """The learning rate of the encoder in the next step."""
        return self.config.lr * self._share()

    def weights(self) -> dict[str, Tensor]:
        """What was learned, by the names of the network: "encoder.*" and "decoder.*"."""
        return dict(self.net.state_dict())

    def state(self) -> dict[str, Tensor]:
        """Everything that `restore` needs, as tensors of a flat dict."""
        kept = {f"weights/{k}": v for k, v in self.weights().items()}
        for name, made in self._optimisers.items():
            kept |= {f"{name}/{k}": v for k, v in optimiser.state_of(made).items()}
        return kept | {"step": torch.tensor(self.step)}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on where another trainer of the same settings stopped."""
        self.net.load_state_dict(below(state, "weights/"))
        for name, made in self._optimisers.items():
            optimiser.restore(made, below(state, f"{name}/"))
        self.step = int(state["step"])

    def _alternate(self, x: Tensor, cut: _Cut) -> None:
        """The encoder on the cut, then both on the reconstruction (algorithm 1)."""
        c = self.config
        if c.ncut_weight:
            self._update("ncut", {"ncut": cut(self.net.encoder(x).softmax(dim=1))})
        if c.rec_weight:
            self._update("reconstruction", {"reconstruction": self._error(x, self.net(x)[1])})

    def _joint(self, x: Tensor, cut: _Cut) -> None:
        """Both on a weighted sum, from one pass through the network."""
        c, losses = self.config, {}
        probabilities = self.net.encoder(x).softmax(dim=1)
        if c.ncut_weight:
            losses["ncut"] = cut(probabilities)
        if c.rec_weight:
            losses["reconstruction"] = self._error(x, self.net.decoder(probabilities))
        self._update("joint", losses)

    def _error(self, x: Tensor, made: Tensor) -> Tensor:
        """Squared error of reconstructed images, a scalar."""
        errors = (x - made).square()
        return errors.mean() if self.config.reduction == "mean" else errors.sum() / len(x)

    def _update(self, name: str, losses: Mapping[str, Tensor]) -> None:
        """Take note of some losses, and one step down their weighted sum."""
        made = self._optimisers[name]
        self.losses |= {part: loss.item() for part, loss in losses.items()}
        total = torch.stack([self._factors[part] * loss for part, loss in losses.items()]).sum()
        if not math.isfinite(total.item()):
            raise UsageError(
                f"Losses are no longer finite at step {self.step}: {self.losses}. Train with lower "
                "learning rates, or with the reduction 'mean', which SGD at published rates needs."
            )
        made.zero_grad(set_to_none=True)
        total.backward()  # type: ignore[no-untyped-call]
        made.step()

    def _share(self) -> float:
        """What is left of the learning rates in the next step."""
        c = self.config
        if c.schedule == "cosine":
            return Cosine(1.0, end=0.0).at(self.step, c.iterations)
        return c.drop ** (self.step // c.drop_every) if c.drop_every else 1.0

    def _make(self) -> dict[str, torch.optim.Optimizer]:
        """One optimiser for every update of a step: each remembers its own loss only."""
        c, net = self.config, self.net
        apart: list[tuple[nn.Module, float]] = [(net.encoder, c.lr), (net.decoder, c.decoder_lr)]
        if c.update == "joint":
            return {"joint": _optimiser(c.optimiser, apart)}
        both = c.ncut_scope == "all"
        return {
            "ncut": _optimiser(c.optimiser, [(net, c.lr)] if both else apart[:1]),
            "reconstruction": _optimiser(c.optimiser, [(net, c.decoder_lr)] if both else apart),
        }


class _Cut:
    """The normalised cut of some images, as a function of probabilities."""

    def __init__(self, config: WnetTraining, images: Tensor, pairs: Weights | None) -> None:
        self._config, self._images, self._pairs = config, images, pairs

    def __call__(self, probabilities: Tensor) -> Tensor:
        """(B, K, H, W) -> the mean over the images, a scalar."""
        c = self._config
        if c.ncut == "class-mean":
            images = self._images / WHITE
            return class_mean_ncut(
                probabilities,
                images,
                radius=c.affinity.radius,
                sigma_place=c.affinity.sigma_place,
                sigma_value=c.affinity.sigma_value,
                pooled=c.pooled,
            ).mean()
        pairs = weights(self._images, c.affinity) if self._pairs is None else self._pairs
        return soft_ncut(probabilities, pairs, pooled=c.pooled).mean()


def _optimiser(name: str, parts: Sequence[tuple[nn.Module, float]]) -> torch.optim.Optimizer:
    """Build an optimiser; each network keeps the rate it starts with as "start"."""
    groups = [{"params": list(net.parameters()), "lr": lr, "start": lr} for net, lr in parts]
    if name == "sgd":
        return torch.optim.SGD(groups, momentum=MOMENTUM)
    return torch.optim.Adam(groups, fused=True)
