"""How TransFGU's decoder learns from responses: rounds of a student and a teacher that it was.

Shapes: `B` images, `K` channels of the responses, `h w` patch grid, `H W` pixels.

Source: Yin et al., "TransFGU", ECCV 2022, section 3.4, equations 8 to 15, and the published code.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from zerolabel.errors import UsageError, unknown_name
from zerolabel.networks.students import Student
from zerolabel.networks.transformer import seeded
from zerolabel.ops import bootstrapping as losses
from zerolabel.ops.roi import roi_align
from zerolabel.store import below
from zerolabel.training import optimiser
from zerolabel.training.distort import jitter

SCALES = (0.4, 0.5, 0.6, 0.7, 0.8, 0.9)  # sides of a crop, as shares of the image's
STEPS = 120  # of an epoch where few images do not make so many
NORMS = ("image", "crop")
LIMIT = 1.0  # of every entry of a gradient


@dataclass(frozen=True, kw_only=True)
class Bootstrapping:
    """Settings; the defaults are those of the published code for PASCAL VOC, but for the batch.

    Attributes:
        epochs: length of the training.
        repeat: how often an epoch shows every image; 0 for once, but an epoch has `STEPS` at least.
        batch: images per step.
        lr: learning rate of Adam, constant.
        decay: added to the gradient of matrices, times the weight.
        start: the first epoch that may begin a round; none does if it is not below `epochs`.
        intervals: epochs between rounds, by tens of epochs; the last one holds from there on.
        peer: whether agreement with wrong labels costs, after the first round.
        uncertainty, diversity: weights of these losses.
        teacher: share of the teacher in the targets, 0..1.
        norm: responses are brought to 0..1 in every "image", or in every "crop", as published.
        background: whether channel 0 is what responds to nothing, equation 8.
        distort: whether colours change.
        amp: let the networks compute in bfloat16.
        seed: fixes every draw.
    """

    epochs: int = 100
    repeat: int = 20
    batch: int = 32
    lr: float = 1e-4
    decay: float = 5e-4
    start: int = 5
    intervals: tuple[int, ...] = (5, 5, 5, 5, 4, 4, 4, 4, 4, 3)
    peer: bool = True
    uncertainty: float = 0.3
    diversity: float = 1.0
    teacher: float = 0.5
    norm: str = "crop"
    background: bool = False
    distort: bool = True
    amp: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if self.norm not in NORMS:
            raise unknown_name("choice of norm", self.norm, NORMS)
        if not self.intervals or min(self.epochs, self.batch, *self.intervals) < 1:
            found = f"{self.epochs}, {self.batch} and {self.intervals}"
            raise UsageError(
                f"epochs, batch and intervals must be whole numbers above 0, got {found}."
            )
        if self.repeat < 0:
            raise UsageError(f"repeat must be a whole number from 0, got {self.repeat}.")
        if self.lr <= 0 or min(self.decay, self.start, self.uncertainty, self.diversity) < 0:
            raise UsageError("lr must be above 0; decay, start and weights of losses 0 or more.")
        if not 0 <= self.teacher <= 1:
            raise UsageError(f"teacher is a share in 0..1, got {self.teacher}.")

    def length(self, images: int) -> int:
        """Steps of an epoch with so many images; what does not fill a batch is left out."""
        once = max(1, images // self.batch)
        return self.repeat * once if self.repeat else max(STEPS, once)

    def renews(self, epoch: int) -> bool:
        """Whether a round begins with an epoch: the student becomes the teacher."""
        interval = self.intervals[min(epoch // 10, len(self.intervals) - 1)]
        return epoch >= self.start and epoch > 0 and epoch % interval == 0


@dataclass(frozen=True)
class Views:
    """Crops of a batch and what responds in them.

    Attributes:
        images: float32 (B, 3, H / 2, W / 2), 0..255.
        targets: float32 (B, K', h / 2, w / 2), 0..1; K' is K, or K + 1 with a background.
        certain: bool (B, h / 2, w / 2), patches that respond to something.
    """

    images: Tensor
    targets: Tensor
    certain: Tensor


def views(
    images: Tensor, responses: Tensor, config: Bootstrapping, *, patch: int, step: int
) -> Views:
    """Crop images and responses alike, half as large as they were, and change the colours.

    Args:
        images: uint8 (B, 3, H, W).
        responses: float32 (B, K, h, w) on the same device.
        config: the settings.
        patch: side of a patch in pixels.
        step: with the seed, decides every draw.

    Returns:
        The crops; their targets are normalised, see `ops.bootstrapping`.
    """
    generator = torch.Generator().manual_seed(config.seed * 1_000_003 + step)
    B, grid = len(images), responses.shape[2:]
    x = images.float()
    if config.distort:
        x = jitter(x, generator=generator)
    scale = torch.tensor(SCALES)[torch.randint(len(SCALES), (B,), generator=generator)]
    corner = torch.rand(B, 2, generator=generator) * (1 - scale)[:, None]
    flip = (torch.rand(B, generator=generator) < 0.5).to(images.device)
    boxes = torch.cat([corner, corner + scale[:, None]], 1).to(images.device)  # (B, 4), 0..1
    cells = max(1, grid[0] // 2), max(1, grid[1] // 2)
    boxes = boxes * boxes.new_tensor([*grid, *grid])  # in patches: pixels beyond the last are left
    x = roi_align(x, boxes * patch, (cells[0] * patch, cells[1] * patch), flip=flip, samples=1)
    if config.norm == "image":
        targets = roi_align(losses.normalise(responses), boxes, cells, flip=flip)
    else:
        targets = losses.normalise(roi_align(responses, boxes, cells, flip=flip))
    certain = losses.responding(targets)
    return Views(x, losses.with_background(targets) if config.background else targets, certain)


class BootstrapTrainer:
    """A student, the teacher that it was, and the optimiser.

    Attributes:
        student: trained in place; every round it starts from its first weights.
        teacher: the student of the round before, or None in the first.
        config: the settings.
        length: steps of an epoch.
        step: steps done.
    """

    def __init__(self, student: Student, config: Bootstrapping, *, length: int) -> None:
        self.student, self.config, self.length, self.step = student, config, length, 0
        self.teacher: Student | None = None
        self._first = copy.deepcopy(student.state_dict())
        self._renewed = 0  # epoch of the last round
        decayed, plain = optimiser.groups(student)
        self.optimiser = torch.optim.Adam(
            [
                {"params": decayed, "weight_decay": config.decay},
                {"params": plain, "weight_decay": 0.0},
            ],
            lr=config.lr,
            fused=True,
        )

    def learn(self, tokens: Tensor, seen: Views) -> float:
        """Do one step; with the first one of an epoch a round may begin.

        Args:
            tokens: what the student decodes: patch tokens of the crops, float32 (B, h, w, D), or
                the crops themselves, normalised, float32 (B, 3, H, W).
            seen: the crops.

        Returns:
            The loss of the batch, before the step; if it is not above 0 there is none, as in the
            published code.
        """
        c, (epoch, place) = self.config, divmod(self.step, self.length)
        if place == 0 and c.renews(epoch):
            self._renew(epoch)
        device = tokens.device
        self.student.train()
        # drawn by the step alone, so that an interrupted training drops the same when it goes on
        drawn = c.seed * 1_000_003 + self.step
        with (
            seeded(drawn, device=device),
            torch.autocast(device.type, torch.bfloat16, enabled=c.amp),
        ):
            logits, classes = self.student.decode(tokens)
            said = None
            if self.teacher is not None:
                with torch.no_grad():
                    said, _ = self.teacher.decode(tokens)
        logits, targets = logits.float(), seen.targets
        if said is not None:
            targets = losses.mix(targets, said.float(), share=c.teacher)
        since = epoch - self._renewed
        loss = losses.peer_loss(
            logits,
            targets,
            weight=losses.peer_weight(since) if c.peer and self.teacher is not None else 0.0,
            generator=torch.Generator().manual_seed(drawn),
        )
        if c.uncertainty:
            certain = seen.certain if c.background else None
            loss = loss + c.uncertainty * losses.uncertainty_loss(
                logits, background=c.background, certain=certain
            )
        if c.diversity:
            loss = loss + c.diversity * losses.diversity_loss(classes.float())
        self.step += 1
        if loss.item() > 0:
            self.optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_value_(self.student.parameters(), LIMIT)
            self.optimiser.step()
        return loss.item()

    def state(self) -> dict[str, Tensor]:
        """Everything that `restore` needs, as tensors of a flat dict."""
        kept = {f"student/{k}": v for k, v in self.student.state_dict().items()}
        if self.teacher is not None:
            kept |= {f"teacher/{k}": v for k, v in self.teacher.state_dict().items()}
        kept |= {f"optimiser/{k}": v for k, v in optimiser.state_of(self.optimiser).items()}
        return kept | {"step": torch.tensor(self.step), "renewed": torch.tensor(self._renewed)}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on where another trainer of the same settings stopped."""
        self.student.load_state_dict(below(state, "student/"))
        taught = below(state, "teacher/")
        if taught:
            self.teacher = copy.deepcopy(self.student).requires_grad_(False).eval()
            self.teacher.load_state_dict(taught)
        optimiser.restore(self.optimiser, below(state, "optimiser/"))
        self.step, self._renewed = int(state["step"]), int(state["renewed"])

    def _renew(self, epoch: int) -> None:
        """Begin a round; the optimiser remembers, as in the published code."""
        self.teacher = copy.deepcopy(self.student).requires_grad_(False).eval()
        self.student.load_state_dict(self._first)
        self._renewed = epoch
