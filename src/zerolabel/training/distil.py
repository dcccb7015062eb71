"""How a student learns from (rectified) CLIP: its labels, its features and its texts.

Shapes: `B` images, `H W` pixels, `h w` patch grid of CLIP, `h' w'` grid of the student, `P`
channels of the space of images and texts, `D` of CLIP's image tower, `Q` words.

Source: Wang and Kang, "ReCLIP++: Learn to rectify the bias of CLIP for unsupervised semantic
segmentation", 2024, section III-E, equations 8 to 10; Zhou et al., "Extract free dense labels from
CLIP", ECCV 2022, for `MASKCLIP_PLUS`. The published code detaches the student's features before the
losses of equations 9 and 10, so that they teach nothing; here they do, as the paper says.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from zerolabel.errors import UsageError, unknown_name
from zerolabel.networks.bias import Rectifier
from zerolabel.networks.deeplab import DeepLabV2
from zerolabel.networks.distilled import HEADS, Distilled, Seen, student_head
from zerolabel.ops.distillation import feature_loss, nearest, one_hot
from zerolabel.ops.rectification import POOLS, contrastive, gumbel_mask
from zerolabel.ops.strip_loss import upsampled_cross_entropy
from zerolabel.store import below
from zerolabel.training import optimiser
from zerolabel.training.schedule import Poly
from zerolabel.types import IGNORE

MASKS = ("teacher", "student")


@dataclass(frozen=True, kw_only=True)
class Distillation:
    """Settings; the defaults are those of ReCLIP++ on PASCAL VOC, but for the length.

    Attributes:
        iterations: steps of the training.
        batch: images per step.
        epoch: steps after which the learning rate falls again; 1 for every step.
        lr: learning rate at the start.
        floor: what it never falls below, unless it starts there.
        power: of the share of the training that is left.
        momentum, decay: of SGD; every weight decays, norms too, as published.
        mask, feature, text: weights of the losses, equations 8, 9 and 7; 0 leaves one out.
        mask_scale: what scores are multiplied with before the softmax of equation 8; published is
            1, which hardly tells cosines ("query", "query+bias") from each other.
        logit_scale: 1 / tau of equation 7. (The published code takes its logarithm here.)
        masks: of the text loss: "teacher", its labels, as in the code; or "student", drawn from its
            own scores, as in the paper.
        pool, cosine: of the text loss, see `ops.rectification.contrastive`.
        head: a name in `networks.distilled.HEADS`, see `student_head` there (table IX).
        unit: heads but "own" see vectors of length 1.
        ignore: the label of places that do not count.
        amp: let the student compute in bfloat16.
        seed: fixes every draw.
    """

    iterations: int = 2000
    batch: int = 16
    epoch: int = 1
    lr: float = 0.01
    floor: float = 1e-4
    power: float = 0.9
    momentum: float = 0.9
    decay: float = 5e-4
    mask: float = 1.0
    feature: float = 0.5
    text: float = 0.5
    mask_scale: float = 1.0
    logit_scale: float = 100.0
    masks: str = "teacher"
    pool: str = "area"
    cosine: bool = False
    head: str = "inherited"
    unit: bool = True
    ignore: int = IGNORE
    amp: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        named = (("head", HEADS), ("pool", POOLS), ("masks", MASKS))
        for name, known in named:
            if getattr(self, name) not in known:
                raise unknown_name(f"choice of {name}", getattr(self, name), known)
        if min(self.iterations, self.batch, self.epoch) < 1:
            found = f"{self.iterations}, {self.batch} and {self.epoch}"
            raise UsageError(f"iterations, batch and epoch must be 1 or more, found {found}.")
        if min(self.lr, self.mask_scale, self.logit_scale) <= 0 or not 0 <= self.momentum < 1:
            raise UsageError("lr and scales must be above 0, momentum in 0..1 and below 1.")
        if min(self.floor, self.power, self.decay, self.mask, self.feature, self.text) < 0:
            raise UsageError("floor, power, decay and the weights of losses must be 0 or more.")
        if not self.mask + self.feature + self.text:
            raise UsageError("All losses have the weight 0: nothing would be learned.")


MASKCLIP_PLUS = Distillation(batch=4, head="query", unit=False, feature=0.0, text=0.0)


class DistilTrainer:
    """A student with its head, and the optimiser.

    Attributes:
        net: the student, trained in place, and the head.
        config: the settings.
        step: steps done.
    """

    def __init__(
        self,
        student: DeepLabV2,
        teacher: Rectifier | None,
        config: Distillation,
        *,
        queries: Tensor,
        references: Tensor | None = None,
    ) -> None:
        """Put a head on a student.

        Args:
            student: trained in place, on its device.
            teacher: what the head inherits, copied and frozen; None for heads without bias.
            config: the settings.
            queries: float (Q, P), unit rows.
            references: float (Q, P) of the teacher.

        Raises:
            UsageError: a head that needs a teacher without one, a student of another width than
                the queries', or an ignored label that is a word's.
        """
        if 0 <= config.ignore < len(queries):
            raise UsageError(
                f"Label {config.ignore} is ignored, but it is the id of one of {len(queries)} "
                "words. Set ignore to -1."
            )
        head = student_head(
            config.head,
            queries,
            references=references,
            rectifier=teacher,
            unit=config.unit,
            seed=config.seed,
        )
        self.device = next(student.parameters()).device
        self.net, self.config, self.step = Distilled(student, head).to(self.device), config, 0
        self.optimiser = torch.optim.SGD(
            [p for p in self.net.parameters() if p.requires_grad],
            lr=config.lr,
            momentum=config.momentum,
            weight_decay=config.decay,
        )

    def learn(
        self,
        images: Tensor,
        dense: Tensor | None,
        labels: Tensor,
        positions: Tensor | None = None,
    ) -> float:
        """Do one step.

        Args:
            images: normalised as the student wants them, float32 (B, 3, H, W).
            dense: the teacher's features, not normalised, float (B, h, w, P); may be None if the
                feature loss has the weight 0.
            labels: the teacher's, int64 (B, H, W), or (B, h, w) of a grid over the whole image:
                0..Q-1, or `ignore`.
            positions: CLIP's position embedding for these images, float32 (h, w, D), for heads
                with a bias.

        Returns:
            The loss of the batch, before the step.

        Raises:
            UsageError: shapes that do not fit together, or images that are too small to learn
                from.
        """
        self._check(images, dense, labels)
        for group in self.optimiser.param_groups:
            group["lr"] = self.lr()
        self.net.train()
        places = None if positions is None else positions.to(self.device)
        seen = self.net(images.to(self.device), places, amp=self.config.amp)
        terms = self.losses(seen, dense, labels.to(self.device), size=_size(images))
        loss = torch.stack(list(terms.values())).sum()
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimiser.step()
        self.step += 1
        return loss.item()

    def losses(
        self, seen: Seen, dense: Tensor | None, labels: Tensor, *, size: tuple[int, int]
    ) -> dict[str, Tensor]:
        """Compute the weighted terms of equation 10, those of weight 0 left out.

        Args:
            seen: of the student.
            dense: see `learn`.
            labels: see `learn`; on the student's device.
            size: (H, W) of the images.

        Returns:
            Scalars by name: "mask", "feature" and "text".
        """
        c, terms = self.config, {}
        if c.mask:
            wanted = nearest(labels, size)
            scores = seen.logits * c.mask_scale
            terms["mask"] = c.mask * upsampled_cross_entropy(scores, wanted, ignore=c.ignore)
        if c.feature and dense is not None:
            terms["feature"] = c.feature * feature_loss(seen.embedding, dense.to(self.device))
        if c.text:
            terms["text"] = c.text * self._text(seen, labels)
        return terms

    @torch.no_grad()
    def predict(self, images: Tensor, positions: Tensor | None = None) -> Tensor:
        """Score words with what was learned so far: see `Distilled.predict`."""
        places = None if positions is None else positions.to(self.device)
        return self.net.predict(images.to(self.device), places, amp=self.config.amp)

    def lr(self) -> float:
        """The learning rate of the next step."""
        c = self.config
        epochs = -(-c.iterations // c.epoch)
        falling = Poly(c.lr, end=0.0, power=c.power).at(self.step // c.epoch, epochs)
        return max(min(c.floor, c.lr), falling)

    def state(self) -> dict[str, Tensor]:
        """Everything that `restore` needs, as tensors of a flat dict."""
        kept = {f"optimiser/{k}": v for k, v in optimiser.state_of(self.optimiser).items()}
        return self.weights() | kept | {"step": torch.tensor(self.step)}

    def weights(self) -> dict[str, Tensor]:
        """All that a prediction needs: "student.*" and "head.*", see `Distilled`."""
        return dict(self.net.state_dict())

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on where another trainer of the same settings stopped."""
        self.net.load_state_dict(
            {name: v for name, v in state.items() if name.startswith(("student.", "head."))}
        )
        optimiser.restore(self.optimiser, below(state, "optimiser/"))
        self.step = int(state["step"])

    def _text(self, seen: Seen, labels: Tensor) -> Tensor:
        """The contrastive loss of the student's vectors, of length 1, under masks of the words."""
        c, queries = self.config, self.net.head.queries
        grid = (seen.embedding.shape[1], seen.embedding.shape[2])
        taught = one_hot(nearest(labels, grid), len(queries), ignore=c.ignore)
        mask = taught
        if c.masks == "student":
            drawn = torch.Generator().manual_seed(c.seed * 1_000_003 + self.step)
            mask = gumbel_mask(c.logit_scale * seen.logits, generator=drawn)
        return contrastive(
            mask,
            F.normalize(seen.embedding, dim=3),
            queries,
            taught.flatten(2).any(2),
            pool=c.pool,
            cosine=c.cosine,
            scale=c.logit_scale,
        )

    def _check(self, images: Tensor, dense: Tensor | None, labels: Tensor) -> None:
        fits = images.ndim == 4 and labels.ndim == 3 and len(images) == len(labels)
        if fits and dense is not None:
            P = self.net.head.queries.shape[1]
            fits = dense.ndim == 4 and (len(dense), dense.shape[3]) == (len(images), P)
        if not fits:
            found = f"{tuple(images.shape)}, {None if dense is None else tuple(dense.shape)}"
            raise UsageError(
                "Expected images (B, 3, H, W), features (B, h, w, P) and labels (B, H, W) or "
                f"(B, h, w), found {found} and {tuple(labels.shape)}."
            )
        if self.config.feature and dense is None:
            raise UsageError("The feature loss needs the teacher's features; or set feature to 0.")
        if len(images) == 1 and max(_size(images)) <= self.net.student.stride:
            raise UsageError(
                f"The norms of the student compare values, and of one image of {_size(images)} "
                "pixels a single one is left. Give more images, or larger ones."
            )


def _size(maps: Tensor) -> tuple[int, int]:
    return maps.shape[2], maps.shape[3]
