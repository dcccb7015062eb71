"""Pre-train a backbone on unlabelled images, and go on exactly where an interrupted run stopped."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch

from zerolabel.backbones import pick_device
from zerolabel.data.pool import Pool, load_pool
from zerolabel.errors import UsageError
from zerolabel.jobs.pretraining.options import Options, settle
from zerolabel.jobs.pretraining.record import Pretrained, Record
from zerolabel.networks.vit import ViT
from zerolabel.store import Progress, Store
from zerolabel.training import distributed
from zerolabel.training.config import Pretrain
from zerolabel.training.loop import Trainer
from zerolabel.training.precision import use_amp


def pretrain(
    sources: Sequence[str | Path],
    out: str | Path,
    *,
    options: Options | None = None,
    progress: Progress | None = None,
) -> Pretrained:
    """Train a vision transformer without labels.

    Args:
        sources: folders of images and `.npz` packs.
        out: the run directory; the same command goes on with an interrupted run, exactly.
        options: settings.
        progress: called with (work, items done, items in all).

    Returns:
        Where the weights are.

    Raises:
        UsageError: options that contradict each other, or unknown names.
        DataError: a source that cannot be read.
        StoreError: the directory holds another run, or cannot be written.
        CollapseError: the run is dead; the reason is in the message.
        KeyboardInterrupt: it was interrupted; the checkpoint is written.
    """
    options = options or Options()
    device = distributed.start(pick_device(options.device))
    try:
        config, start = settle(options, device)
        store = Store(out, report=progress if distributed.rank() == 0 else None)
        with _alone(store):
            pools = [load_pool(Path(s), side=options.side, tell=store.report) for s in sources]
            return _train(store, pools, config, start, options, device)
    finally:
        distributed.stop()


def _train(
    store: Store,
    pools: list[Pool],
    config: Pretrain,
    start: ViT | None,
    options: Options,
    device: torch.device,
) -> Pretrained:
    """Train to the end, leaving log, checkpoints and weights in the run directory."""
    steps, shares = _length(options, pools, config), _shares(options, pools)
    amp = use_amp(options.amp, device)
    trainer = Trainer(config, device=device, amp=amp, start=start)
    record = Record(store.directory, trainer, options, pools, shares=shares, amp=amp)
    with _stop_requests() as stop:
        near = [_near(pool, device) for pool in pools]
        for look in trainer.run(near, shares=shares, steps=steps, minutes=options.minutes):
            total = look.total * config.batch
            store.report("train", look.images, total or look.images + 1)
            record.keep(look, stopping=stop.is_set())
            if stop.is_set() and look.step != look.total:
                raise KeyboardInterrupt
    return record.finish()


def _length(options: Options, pools: Sequence[Pool], config: Pretrain) -> int:
    """Steps of the run; 0 if it is given in minutes."""
    images = sum(len(pool.images) for pool in pools)
    steps = options.steps or int(options.epochs * images / config.batch)
    if options.epochs and not steps:
        raise UsageError(f"{options.epochs} epochs of {images} images are not one batch.")
    return steps


def _shares(options: Options, pools: Sequence[Pool]) -> list[int]:
    """Steps of a cycle that draw from each source."""
    shares = list(options.shares) or [1] * len(pools)
    if len(shares) != len(pools) or min(shares) < 1:
        raise UsageError(f"Give one share of at least 1 for each of the {len(pools)} sources.")
    return shares


def _near(pool: Pool, device: torch.device) -> Pool:
    """Keep the images on a GPU that has room for them."""
    if device.type != "cuda" or pool.images.numel() > torch.cuda.mem_get_info(device)[0] // 3:
        return pool
    return replace(pool, images=pool.images.to(device))


@contextmanager
def _alone(store: Store) -> Iterator[None]:
    """Hold the run directory, in the process that writes."""
    if distributed.rank():
        yield
        return
    with store.lock():
        yield


@contextmanager
def _stop_requests() -> Iterator[threading.Event]:
    """Turn the wish to stop into a flag that is read between two steps."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, lambda *_: asked.set()) for number in numbers]
    try:
        yield asked
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
