"""Part of the verb refine: a decoder learns from the responses of all images, once per run.

Shapes: `B` images, `K` channels of the responses, `h w` patch grid.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from zerolabel.backbones import cache
from zerolabel.backbones.weights import digest
from zerolabel.errors import DataError
from zerolabel.networks.students import FpnStudent, Student, StudentConfig, student
from zerolabel.stages import exams
from zerolabel.stages.parts import arrays_of, forget, train_in_parts, weights_and_losses
from zerolabel.store import Stage, Store
from zerolabel.training.bootstrap import Bootstrapping, BootstrapTrainer, views
from zerolabel.training.concepts import WINDOW, batches
from zerolabel.training.selection import SelectingTrainer
from zerolabel.types import Sample

Shard = tuple[Tensor, Tensor]  # uint8 (n, 3, H, W) and float32 (n, K, h, w)


@dataclass(frozen=True)
class Lessons:
    """What the decoder learns from, and how it is seen.

    Attributes:
        read: returns the images of a shard that could be read, and their responses.
        encode: returns what the student decodes of crops, float32 (B, 3, H, W) of 0..255: patch
            tokens (B, h, w, D), or normalised images.
        patch: side of a patch in pixels.
        device: where to compute.
        exam: what the student is judged by after every epoch; None keeps the last weights.
    """

    read: Callable[[int], Shard]
    encode: Callable[[Tensor], Tensor]
    patch: int
    device: torch.device
    exam: exams.Exam | None = None


@dataclass(frozen=True)
class Learned:
    """What came of it.

    Attributes:
        weights: of the student, by name.
        losses: from step to loss, averaged since the step before it.
        epoch: after which of them the weights were taken, counted from 1.
    """

    weights: dict[str, Tensor]
    losses: dict[int, float]
    epoch: int


def train(
    head: StudentConfig,
    training: Bootstrapping,
    lessons: Lessons,
    *,
    shards: Sequence[Sequence[Sample]],
    facts: Sequence[object],
    store: Store,
    body: Mapping[str, Tensor] | None = None,
) -> Learned:
    """Train a decoder, or take up what was trained before.

    Args:
        head: the decoder, or a student with an encoder of its own.
        training: how it learns.
        lessons: from what.
        shards: the samples of every shard.
        facts: everything else that responses and tokens depend on.
        store: keeps the result, and every part what is needed to go on.
        body: weights that the residual network of such a student starts from; random ones if None.

    Returns:
        Weights and losses.

    Raises:
        DataError: no image could be read.
    """
    samples, exam = [sample for shard in shards for sample in shard], lessons.exam
    facts = [*facts, *([digest(body)] if body else []), *([exam.digest] if exam else [])]
    name = cache.key("decoder", samples, head, training, *facts)

    def work() -> Stage:
        made = student(head, seed=training.seed)
        if body is not None and isinstance(made, FpnStudent):
            made.encoder.body.load_state_dict(body)
        return _work(name, made.to(lessons.device), training, lessons, len(shards), store)

    done = store.stage(name, work)
    forget(name, steps=int(done.info["steps"]), store=store)
    return Learned(*weights_and_losses(done), int(done.info["epoch"]))


def _work(
    name: str,
    made: Student,
    training: Bootstrapping,
    lessons: Lessons,
    shards: int,
    store: Store,
) -> Stage:
    shelf = _Shelf(lessons.read)
    sizes = [len(shelf.get(i)[0]) for _, [i] in store.track("responses", range(shards), 1)]
    if not sum(sizes):
        raise DataError("None of the images could be read; failures.json lists the reasons.")
    length = training.length(sum(sizes))
    steps = training.epochs * length
    kind = BootstrapTrainer if lessons.exam is None else SelectingTrainer
    trainer = kind(made, training, length=length)
    stream: Iterator[Tensor] | None = None

    def learn() -> float:
        nonlocal stream
        if stream is None:  # the trainer may have gone on from a later step
            stream = batches(
                lambda i: torch.arange(sizes[i]) + i * ROWS,
                sizes,
                batch=training.batch,
                seed=training.seed,
                first=trainer.step,
            )
        images, responses = shelf.take(next(stream))
        images, responses = images.to(lessons.device), responses.to(lessons.device)
        seen = views(images, responses, training, patch=lessons.patch, step=trainer.step)
        loss = trainer.learn(lessons.encode(seen.images), seen)
        if lessons.exam is not None and trainer.step % length == 0:
            assert isinstance(trainer, SelectingTrainer)
            trainer.judge(exams.judge(trainer.student, lessons.exam, shards=shards))
        return loss

    losses = train_in_parts(name, trainer, learn, steps=steps, store=store)
    weights, chosen = trainer.student.state_dict(), steps
    if isinstance(trainer, SelectingTrainer):
        weights, chosen = trainer.best, trainer.chosen
    info = {"losses": losses, "steps": steps, "epoch": chosen // length}
    return Stage(arrays_of(weights), info)


ROWS = 1 << 20  # more than a shard has images; an image's number is shard * ROWS + row


class _Shelf:
    """Keeps the shards that were read last, as many as `batches` mixes, in memory."""

    def __init__(self, read: Callable[[int], Shard]) -> None:
        self._read, self._kept = read, OrderedDict[int, Shard]()

    def get(self, shard: int) -> Shard:
        """The images and responses of a shard."""
        if shard not in self._kept:
            while len(self._kept) >= WINDOW:
                self._kept.popitem(last=False)
            self._kept[shard] = self._read(shard)
        self._kept.move_to_end(shard)
        return self._kept[shard]

    def take(self, numbers: Tensor) -> Shard:
        """The images and responses of some image numbers, in their order."""
        rows = [divmod(number, ROWS) for number in numbers.tolist()]
        images = torch.stack([self.get(shard)[0][row] for shard, row in rows])
        return images, torch.stack([self.get(shard)[1][row] for shard, row in rows])
