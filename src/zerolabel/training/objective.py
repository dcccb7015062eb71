"""One step's loss: views, the teacher's answers, the student's, and what is compared.

Shapes: `B` images of this process, `V` views, `n` side of a view, `D` channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from zerolabel.backbones.registry import IMAGENET_MEAN, IMAGENET_STD
from zerolabel.training import augment, dense, dino, distributed
from zerolabel.training.config import Pretrain
from zerolabel.training.twin import Twin

SOLARISE = 0.2  # of the second global view (DINO)
HIDDEN = (0.1, 0.5)  # share of the patches that iBOT hides, in half of the images (DINOv2)


@dataclass(frozen=True)
class Batch:
    """Augmented images of one step; the first two views are the global ones.

    Attributes:
        views: normalised float32 (B, 3, n, n), one per view.
        draws: where each view comes from.
        noise: (B, 5 + N), uniform in 0..1, for the dense objective's choices.
    """

    views: list[Tensor]
    draws: list[augment.Draw]
    noise: Tensor


@dataclass(frozen=True)
class Answers:
    """What one twin said of its views, by number of the view."""

    cls: dict[int, Tensor]
    tokens: dict[int, Tensor]


def view_plan(config: Pretrain) -> list[augment.View]:
    """All views of an image: two global ones, then the local ones (DINO, appendix C)."""
    wide = (config.global_low, 1.0)
    narrow = (config.local_low, config.global_low)
    plan = [
        augment.View(config.global_size, wide, blur=1.0, colour=config.colour),
        augment.View(config.global_size, wide, 0.1, SOLARISE, config.colour),
    ]
    local = augment.View(config.local_size, narrow, blur=0.5, colour=config.colour)
    return plan + [local] * config.local_views


def make_batch(images: Tensor, config: Pretrain, *, generator: torch.Generator) -> Batch:
    """Draw and make all views.

    Args:
        images: uint8 (B, 3, S, S), this process's share of the batch.
        config: the settings.
        generator: on the images' device and in the same state in all processes.

    Returns:
        The views.
    """
    count, everyone = len(images), len(images) * distributed.world()
    mine = slice(distributed.rank() * count, (distributed.rank() + 1) * count)
    mean, std = (
        images.new_tensor(c, dtype=torch.float32)[:, None, None]
        for c in (IMAGENET_MEAN, IMAGENET_STD)
    )
    draws, views = [], []
    for view in view_plan(config):
        drawn = augment.draw(view, everyone, generator=generator).part(mine)
        draws.append(drawn)
        views.append((augment.apply(images, drawn, size=view.size) - mean) / std)
    tokens = (max(config.global_size, config.local_size) // config.patch) ** 2
    noise = torch.rand(everyone, 5 + tokens, generator=generator, device=images.device)[mine]
    return Batch(views, draws, noise)


class Objective:
    """Compares a student with its teacher on a batch.

    Attributes:
        centres: one per kind of row, for the objective "dino"; part of a checkpoint.
    """

    def __init__(self, config: Pretrain, *, device: torch.device, amp: bool) -> None:
        self.config = config
        self.amp = torch.autocast(device.type, torch.bfloat16, enabled=amp)
        kinds = 2 if config.rows == "both" else 1
        count = config.prototypes if config.objective == "dino" else 0
        self.centres = [dino.Centre(count, device=device) for _ in range(kinds)]
        locals_ = range(2, 2 + config.local_views)
        self.teacher_views = (0, 1) if config.symmetric else (0,)
        self.student_views = (0, 1, *locals_) if config.symmetric else (1, *locals_)

    def loss(
        self, student: Twin, teacher: Twin, batch: Batch, *, temperature: float
    ) -> dict[str, Tensor]:
        """Compute the losses of a batch.

        Args:
            student: gets gradients.
            teacher: gets none.
            batch: the views.
            temperature: of the teacher, for the objective "dino".

        Returns:
            "loss" and its parts "image", "dense", "koleo"; for the monitors "cls" (B, D) and
            "tokens" (B, h, w, D) of the teacher, and "targets" (B, K) of the objective "dino"; all
            float32.
        """
        c = self.config
        hidden = self._hidden(batch) if c.dense == "ibot" else None
        with torch.no_grad():
            told = self._answer(teacher, batch, self.teacher_views, None)
        said = self._answer(student, batch, self.student_views, hidden)
        total, kept = self._image_loss(student, teacher, said, told, temperature)
        parts = {"image": total}
        if c.dense != "none":
            rows = self._partners(batch, said, told, hidden)
            parts["dense"] = self._dense_loss(student, teacher, rows, temperature)
            total = total + c.dense_weight * parts["dense"]
        if c.koleo:
            seen = [said.cls[v] for v in self.student_views if v < 2]
            parts["koleo"] = torch.stack([dino.koleo_loss(x) for x in seen]).mean()
            total = total + c.koleo * parts["koleo"]
        first = self.teacher_views[0]
        kept |= {"cls": told.cls[first].float(), "tokens": told.tokens[first].float()}
        return {"loss": total, **parts, **kept}

    def _hidden(self, batch: Batch) -> Tensor:
        """What iBOT hides of the global views: bool (views * B, h, w)."""
        low, high = HIDDEN
        share = low + batch.noise[:, 3] * (high - low)
        first = batch.noise[:, 4] < 0.5
        grid = self.config.global_size // self.config.patch
        mask = dense.block_mask(batch.noise[:, :3], grid, share * first)
        # the other half of the images hides in the second view
        other = dense.block_mask(batch.noise[:, :3], grid, share * ~first)
        return torch.cat([mask, other])

    def _partners(
        self, batch: Batch, said: Answers, told: Answers, hidden: Tensor | None
    ) -> dense.Partners:
        """Patches of the student and what the teacher says of the same place."""
        noise, count = batch.noise[:, 5:], self.config.dense_tokens
        found = []
        for i, (v, tokens) in enumerate(said.tokens.items()):
            if hidden is not None:
                if v < 2:
                    masked = hidden.chunk(2)[v]
                    found.append(dense.hidden(tokens, told.tokens[v], masked, noise, count))
                continue
            others = [t for t in told.tokens if t != v]
            t = others[i % len(others)]
            mine, theirs = batch.draws[v], batch.draws[t]
            places = dense.Places(mine.box, mine.flip), dense.Places(theirs.box, theirs.flip)
            found.append(dense.matched(tokens, told.tokens[t], places, noise, count))
        return dense.join(found)

    def _answer(
        self, twin: Twin, batch: Batch, views: Sequence[int], hidden: Tensor | None
    ) -> Answers:
        """Run the backbone once per size of view."""
        answers = Answers({}, {})
        for size in sorted({batch.views[v].shape[-1] for v in views}, reverse=True):
            some = [v for v in views if batch.views[v].shape[-1] == size]
            masked = None
            if hidden is not None and 0 in some:  # nothing is hidden of local views
                rest = len(batch.noise) * len(some) - len(hidden)
                masked = torch.cat([hidden, hidden.new_zeros(rest, *hidden.shape[1:])])
            with self.amp:
                cls, tokens = twin.backbone.forward_all(
                    torch.cat([batch.views[v] for v in some]),
                    masked=masked,
                    mask_token=twin.mask_token,
                )
            answers.cls.update(zip(some, cls.chunk(len(some)), strict=True))
            answers.tokens.update(zip(some, tokens.chunk(len(some)), strict=True))
        return answers

    def _image_loss(
        self, student: Twin, teacher: Twin, said: Answers, told: Answers, temperature: float
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Compare what stands for the image in every two different views; loss and targets."""
        c = self.config
        with torch.no_grad(), self.amp:
            theirs = [teacher.rows(told.cls[v], told.tokens[v], c.rows) for v in told.cls]
        with self.amp:
            ours = [student.rows(said.cls[v], said.tokens[v], c.rows) for v in said.cls]
        seen = list(told.cls), list(said.cls)
        pairs = [(i, j) for i, t in enumerate(seen[0]) for j, s in enumerate(seen[1]) if t != s]
        losses, kept = [], {}
        for kind, centre in enumerate(self.centres):
            t, s = [rows[kind] for rows in theirs], [rows[kind] for rows in ours]
            if c.objective == "dino":
                targets = centre.targets(t, temperature=temperature)
                losses.append(dino.dino_loss(s, targets, pairs, temperature=c.student_temperature))
                centre.update(t)
                kept["targets"] = targets[0]
            else:
                losses += [self._compare(s[j], t[i]) / len(pairs) for i, j in pairs]
        return torch.stack(losses).sum() / len(self.centres), kept

    def _compare(self, student: Tensor, teacher: Tensor) -> Tensor:
        if self.config.objective == "infonce":
            return dino.infonce_loss(student, teacher, temperature=self.config.infonce_temperature)
        return dino.coding_rate_loss(student, teacher)

    def _dense_loss(
        self, student: Twin, teacher: Twin, rows: dense.Partners, temperature: float
    ) -> Tensor:
        """Compare patches that belong together."""
        if student.dense_head is None or teacher.dense_head is None:
            return rows.weight.new_zeros(())
        with torch.no_grad(), self.amp:
            theirs = teacher.dense_head(rows.theirs)
        with self.amp:
            mine = student.dense_head(rows.mine)
        if self.config.objective == "dino":
            # a batch has thousands of patches, enough to balance the prototypes at once
            targets = dino.sinkhorn(theirs, temperature=temperature)
            logs = (mine.float() / self.config.student_temperature).log_softmax(-1)
            each = -(targets * logs).sum(-1)
            count = distributed.total(rows.weight.sum()).clamp(min=1e-6)
            loss: Tensor = (each * rows.weight).sum() / count * distributed.world()
            return loss
        return dino.coding_rate_loss(mine, theirs, rows.weight)
