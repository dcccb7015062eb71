"""How ReCLIP and ReCLIP++ learn the bias of CLIP: masks that should look like their words.

Both towers are frozen, so dense features may come from a cache and a step sees no pixels. Shapes:
`B` images, `Q` words, `h w` patch grid, `D` channels of the image tower, `P` of the space of images
and texts, `S` tokens of a name and its end.

Source: Wang and Kang, "ReCLIP++: Learn to rectify the bias of CLIP for unsupervised semantic
segmentation", 2024, sections III-B to III-D, and the published code.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from zerolabel.errors import UsageError, unknown_name
from zerolabel.networks.bias import Rectifier
from zerolabel.networks.clip_image import PUBLISHED, ClipImage, Reading
from zerolabel.networks.clip_text import ClipText
from zerolabel.ops.rectification import POOLS, contrastive, gumbel_mask
from zerolabel.store import below
from zerolabel.training import optimiser
from zerolabel.training.schedule import Poly

POWER = 0.9  # of the schedule


@dataclass(frozen=True, kw_only=True)
class RectifyTraining:
    """Settings; the defaults are the published code's, but for the lengths.

    Attributes:
        iterations: steps of the training.
        epoch: steps of an epoch; the learning rate changes between epochs only.
        horizon: steps after which the learning rate would be 0; 0 stands for `iterations`. The
            later published recipes stop long before, e.g. after 50 epochs of 200.
        lr: learning rate of the first epoch.
        momentum, decay: of SGD; every weight decays.
        scale: what M_o is multiplied with before words are drawn; 1000 for ReCLIP (v1).
        tau: tau_1 of equation 5.
        logit_scale: 1 / tau of equation 7.
        pool, cosine: see `ops.rectification.contrastive`.
        seed: fixes the noise.
    """

    iterations: int = 1000
    epoch: int = 1
    horizon: int = 0
    lr: float = 0.01
    momentum: float = 0.9
    decay: float = 5e-4
    scale: float = 100.0
    tau: float = 1.0
    logit_scale: float = 100.0
    pool: str = "area"
    cosine: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if self.pool not in POOLS:
            raise unknown_name("pool", self.pool, POOLS)
        if min(self.iterations, self.epoch) < 1 or self.horizon < 0:
            found = f"{self.iterations}, {self.epoch} and {self.horizon}"
            raise UsageError(f"Expected lengths of 1 or more, horizon 0 or more; found {found}.")
        if self.horizon and self.horizon < self.iterations:
            found = f"{self.horizon} and {self.iterations}"
            raise UsageError(f"The horizon must not lie before the last iteration; found {found}.")
        if min(self.lr, self.scale, self.tau, self.logit_scale) <= 0:
            raise UsageError("lr, scale, tau and logit_scale must be above 0.")
        if self.decay < 0 or not 0 <= self.momentum < 1:
            found = f"{self.decay} and {self.momentum}"
            raise UsageError(f"Expected a decay from 0 and a momentum in [0, 1); found {found}.")


class RectifyTrainer:
    """A rectifier, the frozen text tower that reads its learned vectors, and the optimiser.

    Attributes:
        rectifier: trained in place.
        text: frozen in place.
        queries: (Q, P), unit rows; not used if the rectifier learns its own.
        names: sot, suffix and at, as `Rectifier.references` takes them.
        tower: of images, trained in place, too (table VI); None, as published, where its features
            are given.
        config: the settings.
        device: where both are.
        step: steps done.
    """

    def __init__(
        self,
        rectifier: Rectifier,
        text: ClipText,
        *,
        queries: Tensor,
        suffix: Tensor,
        at: Tensor,
        sot: Tensor,
        config: RectifyTraining,
        device: torch.device,
        tower: ClipImage | None = None,
        reading: Reading = PUBLISHED,
    ) -> None:
        """Bring everything to the device; for shapes see the attributes."""
        self.config, self.device, self.step = config, device, 0
        self.rectifier = rectifier.to(device)
        self.text = text.to(device).eval().requires_grad_(False)
        self.queries = queries.detach().to(device).float()
        self.names = {
            "sot": sot.detach().to(device).float(),
            "suffix": suffix.detach().to(device).float(),
            "at": at.to(device),
        }
        self.tower, self._reading = tower, reading
        learned = list(rectifier.parameters())
        if tower is not None:
            learned += tower.to(device).eval().requires_grad_(True).parameters()
        self.optimiser = torch.optim.SGD(
            learned,
            lr=config.lr,
            momentum=config.momentum,
            weight_decay=config.decay,
        )

    def learn(self, dense: Tensor, positions: Tensor, *, present: Tensor) -> float:
        """Do one step.

        Args:
            dense: float (B, h, w, P), MaskCLIP's features, of any length above 0; or, for a tower
                that learns, images as it takes them, float32 (B, 3, H, W).
            positions: float (h, w, D), the position embedding of this grid.
            present: bool (B, Q), the words that each image is thought to hold. Images with none
                are left out; if all are, the step counts and no weight changes.

        Returns:
            The loss, before the step; 0 if no image holds anything.
        """
        held = present.any(dim=1)
        if not bool(held.any()):
            self.step += 1
            return 0.0
        for group in self.optimiser.param_groups:
            group["lr"] = self.lr()
        loss = self._loss(dense[held.to(dense.device)], positions, present[held])
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimiser.step()
        self.step += 1
        return loss.item()

    def lr(self) -> float:
        """The learning rate of the next step: that of its epoch."""
        c = self.config
        epochs = -(-(c.horizon or c.iterations) // c.epoch)
        return Poly(c.lr, end=0.0, power=POWER).at(self.step // c.epoch, epochs)

    @torch.no_grad()
    def texts(self) -> tuple[Tensor, Tensor]:
        """What prediction needs of the text tower: queries and references, each (Q, P)."""
        return self._texts()

    def weights(self) -> dict[str, Tensor]:
        """What was learned, by the names of the rectifier."""
        return dict(self.rectifier.state_dict())

    def state(self) -> dict[str, Tensor]:
        """Everything that `restore` needs, as tensors of a flat dict."""
        kept = {f"weights/{k}": v for k, v in self.weights().items()}
        if self.tower is not None:
            kept |= {f"tower/{k}": v for k, v in self.tower.state_dict().items()}
        kept |= {f"optimiser/{k}": v for k, v in optimiser.state_of(self.optimiser).items()}
        return {**kept, "step": torch.tensor(self.step)}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on where another trainer of the same settings stopped."""
        self.rectifier.load_state_dict(below(state, "weights/"))
        if self.tower is not None:
            self.tower.load_state_dict(below(state, "tower/"))
        optimiser.restore(self.optimiser, below(state, "optimiser/"))
        self.step = int(state["step"])

    def _texts(self) -> tuple[Tensor, Tensor]:
        """Queries and references, with a graph to the learned vectors."""
        made = self.rectifier
        queries = self.queries
        if made.query_prompt is not None:
            queries = made.queries(self.text, **self.names)
        return queries, made.references(self.text, **self.names)

    def _loss(self, dense: Tensor, positions: Tensor, present: Tensor) -> Tensor:
        c = self.config
        if self.tower is not None:
            seen = self.tower(dense.to(self.device), {"dense"}, reading=self._reading).dense
            assert seen is not None  # it was asked for
            dense = seen
        z = F.normalize(dense.to(self.device).float(), dim=3)
        queries, references = self._texts()  # once for all images
        self.rectifier.train()
        rectified = self.rectifier(
            z, queries, references=references, positions=positions.to(self.device).float()
        )
        # drawn by the step alone, so that an interrupted training draws the same when it goes on
        generator = torch.Generator().manual_seed(c.seed * 1_000_003 + self.step)
        mask = gumbel_mask(c.scale * rectified, generator=generator, tau=c.tau)
        return contrastive(
            mask,
            z,
            queries,
            present.to(self.device),
            pool=c.pool,
            cosine=c.cosine,
            scale=c.logit_scale,
        )
