"""Look through a labelled data set for everything that would spoil a score."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from zerolabel.data.benchmarks import choose_space
from zerolabel.data.files import Files, Found, find_layout, list_files
from zerolabel.data.labels import read_raw, read_regions, tally
from zerolabel.data.layouts import FOLDER
from zerolabel.data.spaces import Space, plain_space
from zerolabel.errors import DataError
from zerolabel.store import Progress, Store
from zerolabel.types import IGNORE, LabelMap, Sample

BATCH = 64  # images that are read before progress is told
KINDS = {  # of findings, in words
    "listed_without_image": "{} listed, but not there",
    "images_without_mask": "{} without a mask",
    "masks_without_image": "{} without an image",
    "unreadable": "{} cannot be read",
    "size_mismatches": "{} of another size than the image",
    "unseen_ids": "{} with a value that the label space lacks",
    "nothing_scored": "{} without a pixel that is scored",
}


@dataclass(frozen=True)
class Pair:
    """What was seen of one image and its mask.

    Attributes:
        image: (H, W) of the image; None where it cannot be read or is not there.
        masks: (H, W) of every label map: one, or one per annotator.
        values: raw values that occur in the mask; none of regions.
        broken: id of the image or path of the mask -> why it cannot be read.
    """

    image: tuple[int, ...] | None
    masks: tuple[tuple[int, ...], ...]
    values: tuple[int, ...]
    broken: Mapping[str, str]


def check_data(
    root: str | Path,
    *,
    split: str | None = None,
    space: str | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Read every image and mask of a data set, and list what does not fit together.

    Args:
        root: a data set, as `open_dataset` takes it.
        split: one of its splits; all by default, but for those that only choose among the images of
            others by a list of this package.
        space: one of its label spaces.
        progress: called with (work, items done, items in all).

    Returns:
        What it is (dataset, title, root, space, classes); per split the counts, the classes that
        never occur, and `findings`, each with a kind of `KINDS`, a message, a count and the items;
        the number of all findings.

    Raises:
        DataError: the root is no data set that is known.
        UsageError: there is no such split or label space, or several data sets are there.
    """
    found = find_layout(Path(root), space)
    if found is None:
        raise DataError(
            f"{root} is not a data set that is known. Expected the folders of one that "
            "`zerolabel data list` names, or `images` beside `masks`; give the folder that holds "
            "them."
        )
    own = [name for name, form in found.forms.items() if form.shipped is None]
    parts = {name: list_files(found, name) for name in ([found.choose(split)] if split else own)}
    store = Store(report=progress)
    seen = {name: _read(name, files, found, store) for name, files in parts.items()}
    chosen = _space(found, parts, seen, space)
    checked = {name: _summary(files, seen[name], chosen) for name, files in parts.items()}
    return {
        "dataset": found.name,
        "title": found.layout.title,
        "root": str(found.base),
        "space": chosen.name if chosen else "",
        "classes": len(chosen.classes) if chosen else 0,
        "splits": checked,
        "findings": sum(len(part["findings"]) for part in checked.values()),
    }


def _read(split: str, files: Files, found: Found, store: Store) -> dict[str, Pair]:
    """Read every image and mask of a split, several at a time."""
    seen: dict[str, Pair] = {}
    look = partial(_look, files=files, reader=found.layout.reader)
    names = sorted(files.samples.keys() | files.paths.keys())
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for _, batch in store.track(f"check {split}", names, BATCH):
            seen |= zip(batch, pool.map(look, batch), strict=True)
    return seen


def _space(
    found: Found,
    parts: Mapping[str, Files],
    seen: Mapping[str, Mapping[str, Pair]],
    name: str | None,
) -> Space | None:
    """Choose the label space; of a folder without a list of classes all ids that were seen."""
    try:
        return choose_space(found, next(iter(parts.values())), name)
    except DataError:
        if found.layout is not FOLDER or (found.base / "classes.txt").is_file():
            raise
    values = {v for pairs in seen.values() for pair in pairs.values() for v in pair.values}
    highest = max((value for value in values if value < IGNORE), default=0)
    return plain_space(found.name, tuple(f"class {index}" for index in range(highest + 1)))


def _summary(files: Files, seen: Mapping[str, Pair], space: Space | None) -> dict[str, Any]:
    occurring = {value for pair in seen.values() for value in pair.values}
    return {
        "images": len(files.samples),
        "masks": len(files.paths),
        "pairs": len(files.samples.keys() & files.paths.keys()),
        "listed": len(files.listed) if files.listed is not None else None,
        "absent": _absent(occurring, space) if space is not None and files.paths else [],
        "findings": [*_missing(files), *_odd(seen, files), *_odd_values(seen, files, space)],
    }


def _look(name: str, *, files: Files, reader: str) -> Pair:
    """Read an image and its mask, each if it is there; nothing of them is kept."""
    broken: dict[str, str] = {}
    sample, mask = files.samples.get(name), files.paths.get(name)
    image = _size(sample, broken) if sample is not None else None
    maps: list[LabelMap] = []
    regions = reader == "regions"
    if mask is not None:
        try:
            maps = read_regions(mask) if regions else [read_raw(mask, reader=reader)]
        except DataError as error:
            broken[_relative(mask, files)] = str(error)
    values = tuple(tally(maps[0])) if maps and not regions else ()
    return Pair(image, tuple(one.shape for one in maps), values, broken)


def _size(sample: Sample, broken: dict[str, str]) -> tuple[int, ...] | None:
    try:
        return sample.load().shape[:2]
    except DataError as error:
        broken[sample.id] = str(error)
        return None


def _absent(occurring: Iterable[int], space: Space) -> list[str]:
    ids = {int(space.lut[value]) for value in occurring if value in space.known}
    return [name for index, name in enumerate(space.classes) if index not in ids]


def _missing(files: Files) -> list[dict[str, Any]]:
    """What has no counterpart; a split without any mask is one without labels, as tests are."""
    findings = [_finding("listed_without_image", "image", files.lost)]
    if files.paths:
        bare = [sample.id for name, sample in files.samples.items() if name not in files.paths]
        findings.append(_finding("images_without_mask", "image", bare))
    alone = [
        _relative(path, files) for name, path in files.paths.items() if name not in files.samples
    ]
    findings.append(_finding("masks_without_image", "mask", alone))
    return [finding for finding in findings if finding["count"]]


def _odd(seen: Mapping[str, Pair], files: Files) -> list[dict[str, Any]]:
    """Files that cannot be read, and masks that do not cover their images."""
    broken = [f"{file}: {why}" for pair in seen.values() for file, why in pair.broken.items()]
    sizes = [
        f"{_relative(files.paths[name], files)}: {_by(size)} for {_by(pair.image)}"
        for name, pair in seen.items()
        if pair.image is not None
        for size in sorted(set(pair.masks))
        if size != pair.image
    ]
    findings = [_finding("unreadable", "file", broken), _finding("size_mismatches", "mask", sizes)]
    return [finding for finding in findings if finding["count"]]


def _odd_values(
    seen: Mapping[str, Pair], files: Files, space: Space | None
) -> list[dict[str, Any]]:
    """Values that the label space lacks, and masks that score nothing."""
    if space is None:
        return []
    strange: defaultdict[int, list[str]] = defaultdict(list)
    void = []
    for name, pair in seen.items():
        for value in pair.values:
            if value not in space.known:
                strange[value].append(_relative(files.paths[name], files))
        if pair.values and all(
            value in space.known and space.lut[value] == IGNORE for value in pair.values
        ):
            void.append(_relative(files.paths[name], files))
    findings = [
        _finding("unseen_ids", "mask", where) | {"value": value}
        for value, where in sorted(strange.items())
    ]
    return findings + ([_finding("nothing_scored", "mask", void)] if void else [])


def _finding(kind: str, word: str, items: list[str]) -> dict[str, Any]:
    many = f"{len(items)} {word}{'' if len(items) == 1 else 's'}"
    return {"kind": kind, "message": KINDS[kind].format(many), "count": len(items), "items": items}


def _relative(mask: Path, files: Files) -> str:
    return mask.relative_to(files.masks).as_posix()


def _by(size: tuple[int, ...] | None) -> str:
    return "x".join(map(str, size or ()))
