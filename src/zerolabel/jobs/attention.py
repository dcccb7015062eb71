"""The attention viewer: what a vision transformer looks at, in photos and clips, as pictures.

Where one range of colours, or one set of principal components, serves all images, they are looked
at twice: once to find it, once to draw. Small maps wait on disk in between; images never wait.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch

from zerolabel import backbones
from zerolabel.errors import DataError
from zerolabel.jobs.looking.attend import Chosen, Seen, Watcher
from zerolabel.jobs.looking.draw import Brush, Ranges, Sink, labelled
from zerolabel.jobs.looking.media import Item, Media, open_media
from zerolabel.jobs.looking.options import Options, check, check_media
from zerolabel.jobs.run.claim import check_place, mark, state
from zerolabel.jobs.run.render import write_failures
from zerolabel.ops.pca import Pca, PcaFit
from zerolabel.ops.threads import threads_for
from zerolabel.store import Progress, Stage, Store, write_json

SPOOL = "attention"  # the stage below which maps wait


@dataclass(frozen=True)
class Shown:
    """What the viewer left behind.

    Attributes:
        path: the folder of everything.
        images: images or frames that were looked at.
        files: the pictures or clips, relative to it.
        failures: id -> reason for the images that could not be shown.
        note: how to get a better backbone, if there is something to say.
    """

    path: Path
    images: int
    files: tuple[str, ...]
    failures: dict[str, str]
    note: str = ""


def attention(
    source: str | Path,
    out: str | Path,
    *,
    options: Options | None = None,
    progress: Progress | None = None,
) -> Shown:
    """Draw what a vision transformer attends to.

    Args:
        source: an image, a folder of images, a video, an animated GIF or a folder of frames.
        out: folder for the pictures, made if missing.
        options: what to draw, and how.
        progress: called with (work, items done, items in all).

    Returns:
        What was drawn.

    Raises:
        ZerolabelError: anything that a user can mend; it says how.
    """
    began = time.perf_counter()
    options = options or Options()
    check(options)
    check_place(source, out)
    media = open_media(
        Path(source),
        frames=options.frames,
        fps=options.fps,
        split=options.split,
        truth=options.truth,
    )
    check_media(options, media)
    name, note = backbones.choose(options.backbone, weights=options.weights)
    backbone = backbones.load(name, weights=options.weights, device=options.device)
    watcher = Watcher(
        backbone, size=options.size, mode=options.mode, heads=options.heads, mass=options.mass
    )
    store = Store(out, report=progress)
    with store.lock():
        job = {"command": "attention", "source": Path(source).name, **options.plain()}
        job |= {"backbone": name, "weights": backbone.digest}  # what the file holds, not its place
        mark(store.directory, job)
        work = _Viewing(media, watcher, options, store)
        shown = work.run()
        cost = {"seconds": round(time.perf_counter() - began, 3)}
        write_json(store.directory / "run.json", state("done", job) | work.facts | cost)
    return replace(shown, note=note)


class _Viewing:
    """One job at work."""

    def __init__(self, media: Media, watcher: Watcher, options: Options, store: Store) -> None:
        self.media, self.watcher, self.options, self.store = media, watcher, options, store
        limits = options.limits or ("frame" if media.clip is None else "clip")
        self.ranges = Ranges(None if isinstance(limits, str) else limits)
        self.shared = limits == "clip"
        self.pca = "pca" in options.show
        self.facts: dict[str, Any] = {}
        self.failures: dict[str, str] = {}
        self.best: dict[str, tuple[int, float]] = {}
        self._last: tuple[int, list[Seen]] = (-1, [])

    def run(self) -> Shown:
        """Look, draw, and clear up; of damaged data nothing is kept."""
        try:
            pca = self._survey()
            sink, images = self._draw(pca)
        except DataError:
            self._clear()
            raise
        self._clear()
        failures = self.store.directory / "failures.json"
        if self.failures:
            write_failures(self.store.directory, self.failures)
        else:
            failures.unlink(missing_ok=True)  # of an earlier try
        if not images:
            name, reason = next(iter(self.failures.items()))
            raise DataError(f"No image could be shown, e.g. {name}: {reason}. See {failures}.")
        self.facts = {"images": images, "failed": len(self.failures)}
        self.facts |= {"limits": self.ranges.shared, "best": self.best}
        return Shown(self.store.directory, images, tuple(sink.files), self.failures)

    def _clear(self) -> None:
        """Remove the maps that waited on disk."""
        self.store.forget(SPOOL)
        with suppress(OSError):  # an earlier job may have left something else there
            (self.store.directory / "cache").rmdir()

    def _survey(self) -> Pca | None:
        """Find what all images share; without anything shared this takes no time."""
        if not (self.shared or self.pca):
            return None
        fit, looked = PcaFit(), 0
        for item, seen in self._look("look"):
            chosen = self._choose(item, seen)
            if chosen is None:
                continue
            looked += 1
            if self.shared:
                for label, map_ in labelled(chosen, seen, self.options.show).items():
                    self.ranges.widen(label, map_)
            if seen.tokens is not None and seen.attention is not None:
                fit.add(seen.tokens[None], seen.attention[None])
        return fit.finish(foreground=self.options.foreground) if self.pca and looked else None

    def _draw(self, pca: Pca | None) -> tuple[Sink, int]:
        """Draw every image; clips get their names when all is done."""
        options, images = self.options, 0
        brush = Brush(options.show, ranges=self.ranges, upsample=options.upsample, pca=pca)
        with ExitStack() as stack:
            sink = Sink(self.store.directory, self.media, options.format, stack)
            for item, seen in self._look("draw"):
                chosen = self._choose(item, seen)
                if chosen is None:
                    continue
                images += 1
                with threads_for(item.image.size):  # a few products per pixel
                    for kind, picture in brush.pictures(item.image, seen, chosen):
                        sink.put(item, kind, picture)
        return sink, images

    def _look(self, work: str) -> Iterator[tuple[Item, Seen]]:
        """Look at every image that can be read, batch by batch."""
        done, report = 0, self.store.report
        report(work, 0, max(1, self.media.total))  # 0 of 0 would be all
        batches = self.media.batches(self.watcher.working_size, self.failures)
        for i, items in enumerate(batches):
            yield from zip(items, self._seen(i, items), strict=True)
            done += len(items)
            report(work, done, max(self.media.total, done + 1))  # the total may be a guess
        report(work, done, done)

    def _seen(self, number: int, items: Sequence[Item]) -> list[Seen]:
        """Run the network on a batch, or read from disk what it said when it was asked before."""
        if number == self._last[0]:  # all images are one batch: what was looked at is still here
            return self._last[1]
        images = [item.image for item in items]
        every = "strip" in self.options.show
        look = partial(self.watcher.look, images, tokens=self.pca, every_head=every)
        # Tokens are a hundred times larger than maps: looking again is cheaper than keeping them.
        seen = look() if self.pca or not self.shared else self._kept(number, look)
        self._last = (number, seen)
        return seen

    def _kept(self, number: int, look: Callable[[], list[Seen]]) -> list[Seen]:
        def work() -> Stage:
            seen = look()
            arrays = {str(i): one.maps.numpy() for i, one in enumerate(seen)}
            return Stage(arrays, {"covers": [one.cover for one in seen]})

        stage = self.store.stage(f"{SPOOL}/{self._key}/{number:06d}", work)
        covers = stage.info["covers"]
        return [
            Seen(torch.from_numpy(stage.arrays[str(i)]), (cover[0], cover[1]))
            for i, cover in enumerate(covers)
        ]

    @cached_property
    def _key(self) -> str:
        """A hash of all that decides what the network says."""
        asked = self.options
        facts = (self.watcher.backbone.digest, asked.size, asked.mode, asked.heads, asked.fps)
        every = "strip" in asked.show
        text = repr((*facts, every, self.media.digest())).encode()
        return hashlib.blake2b(text, digest_size=12).hexdigest()

    def _choose(self, item: Item, seen: Seen) -> dict[str, Chosen] | None:
        """Choose the maps of an image; None if the best head cannot be told."""
        try:
            truth = item.truth() if self.options.heads == "best" and item.truth else None
            chosen = self.watcher.choose(seen, truth)
        except DataError as error:
            self.failures[item.id] = str(error)
            return None
        for one in chosen.values():
            if one.best is not None:
                self.best[item.id] = one.best
        return chosen
