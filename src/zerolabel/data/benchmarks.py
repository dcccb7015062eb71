"""Labelled data sets as they are distributed, and a plain pair of folders, images beside masks.

A benchmark is two pieces of data: a line in `LAYOUTS` that says where its files lie, and a table
`tables/<name>.csv` (id, name, r, g, b) with its classes; the row called "void" is not a class.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib import resources
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

from zerolabel.data.folder import find_images
from zerolabel.errors import DataError, unknown_name
from zerolabel.types import IGNORE, Sample

STRETCH = {"L;2": 85, "L;4": 17}  # Pillow spreads grey of few bits over 0..255
VOID = "void"
WHOLE = "all"  # the split of a data set that is not divided


@dataclass(frozen=True)
class Layout:
    """Where a benchmark keeps its files; `{split}` stands for the name of the split.

    Attributes:
        places: folders below the user's root where the benchmark may begin.
        images: folder of the images.
        masks: folder of the label PNGs, which have the names of the images.
        splits: splits that the benchmark publishes.
        listing: text file with the image names of a split, without suffix; None: all in the folder.
    """

    places: tuple[str, ...]
    images: str
    masks: str
    splits: tuple[str, ...]
    listing: str | None = None

    def has(self, base: Path, split: str) -> bool:
        """Say whether a split is there."""
        folders = all((base / f.format(split=split)).is_dir() for f in (self.images, self.masks))
        return folders and (
            self.listing is None or (base / self.listing.format(split=split)).is_file()
        )


LAYOUTS: dict[str, Layout] = {
    "voc21": Layout(
        places=(".", "VOC2012", "VOCdevkit/VOC2012"),
        images="JPEGImages",
        masks="SegmentationClass",
        splits=("train", "val", "trainval"),
        listing="ImageSets/Segmentation/{split}.txt",
    ),
    "camvid11": Layout(
        places=(".", "CamVid"),
        images="{split}",
        masks="{split}annot",
        splits=("train", "val", "test"),
    ),
}


@dataclass(frozen=True)
class Dataset:
    """One split of a labelled data set.

    Attributes:
        name: a key of `LAYOUTS`, or the name of the folder.
        split: which part of it; "all" where it is not divided.
        images: the folder that sample ids are relative to.
        samples: sorted by id; an image without a mask has no `load_label`.
        classes: class names, index = id in the loaded labels.
        ignore: ids in the files that mean "not scored"; ids outside the classes are not scored
            either, and both are loaded as 255.
    """

    name: str
    split: str
    images: Path
    samples: tuple[Sample, ...]
    classes: tuple[str, ...]
    ignore: tuple[int, ...]


def open_dataset(root: str | Path, *, split: str | None = None) -> Dataset | None:
    """Recognise a labelled data set by its folders.

    Args:
        root: the folder of a benchmark in `LAYOUTS` (or one above it, as unpacked), or a folder
            with `images` and `masks` or `labels`, and optionally `classes.txt`: one name per line,
            ids in order.
        split: a split of the data set; the default is "val" where there is one.

    Returns:
        The data set, or None if the root is none of these, e.g. a folder of photos.

    Raises:
        DataError: the folders are those of a data set, but their content does not fit together.
        UsageError: there is no such split.
    """
    root = Path(root)
    for name, layout in LAYOUTS.items():
        for base in (root / place for place in layout.places):
            splits = [s for s in layout.splits if layout.has(base, s)]
            if splits:
                return _benchmark(name, layout, base, _choose(split, splits))
    masks = next((root / m for m in ("masks", "labels") if (root / m).is_dir()), None)
    if masks is None or not (root / "images").is_dir():
        return None
    return _folder_pair(root, masks, _choose(split, [WHOLE]))


def read_label(path: Path, classes: int) -> NDArray[np.uint8]:
    """Read the class ids of a palette or grey PNG.

    Args:
        path: the file.
        classes: C, at most 255; every id outside 0..C-1 becomes 255.

    Returns:
        uint8 (H, W), 0..C-1 or 255.

    Raises:
        DataError: the file is unreadable or has more than one channel.
    """
    try:
        with Pillow.open(path) as image:
            mode = image.mode
            stretch = STRETCH.get(str(image.tile[0].args), 1) if image.tile else 1
            ids = np.asarray(image) // stretch
    except (OSError, ValueError, SyntaxError, Pillow.DecompressionBombError) as error:
        raise DataError(f"The mask {path} cannot be read: {error}") from None
    if ids.ndim != 2 or ids.dtype.kind == "f":
        raise DataError(
            f"The mask {path} is a {mode} picture. Expected a palette or grey PNG whose values are "
            f"class ids (Pillow modes P, L, 1 or I;16), found {mode}. Replace every colour by its "
            "class id and save the ids."
        )
    lut = np.full(256, IGNORE, np.uint8)
    lut[:classes] = np.arange(classes)
    label: NDArray[np.uint8] = lut[np.clip(ids, 0, IGNORE).astype(np.uint8, copy=False)]
    return label


def _choose(split: str | None, known: Sequence[str]) -> str:
    """Take the split asked for, else "val", else the first."""
    if split is None:
        return "val" if "val" in known else known[0]
    if split not in known:
        raise unknown_name("split", split, known)
    return split


def _benchmark(name: str, layout: Layout, base: Path, split: str) -> Dataset:
    images = base / layout.images.format(split=split)
    samples = _by_stem(find_images(images))
    if layout.listing is not None:
        file = base / layout.listing.format(split=split)
        listed = file.read_text(encoding="utf-8").split()
        lost = [stem for stem in listed if stem not in samples]
        if lost or not listed:
            raise DataError(
                f"{file} lists {len(listed)} images, {len(lost)} of which are not in {images}"
                f"{' such as ' + lost[0] if lost else ''}. Expected one name per line, each the "
                "name of an image without suffix. Unpack the whole data set, or correct the list."
            )
        samples = {stem: samples[stem] for stem in sorted(listed)}
    table = resources.files("zerolabel.data").joinpath(f"tables/{name}.csv")
    rows = list(csv.DictReader(table.read_text(encoding="utf-8").splitlines()))
    classes = tuple(row["name"] for row in rows if row["name"] != VOID)
    ignore = tuple(int(row["id"]) for row in rows if row["name"] == VOID)
    masks = _find_masks(base / layout.masks.format(split=split))
    return Dataset(name, split, images, _label(samples, masks, len(classes)), classes, ignore)


def _folder_pair(root: Path, folder: Path, split: str) -> Dataset:
    samples, masks = _by_stem(find_images(root / "images")), _find_masks(folder)
    used = [masks[stem] for stem in samples if stem in masks]
    if not used:
        stem = next(iter(samples))
        raise DataError(
            f"No mask in {folder} has the name of an image in {root / 'images'}. Expected "
            f"{stem}.png for {samples[stem].id}, found {sorted(masks)[:3] or 'no PNG'}. Rename the "
            f"masks, or give {root / 'images'} itself to use the images without labels."
        )
    names = root / "classes.txt"
    classes = _read_classes(names) if names.is_file() else _count_classes(used, names)
    labelled = _label(samples, masks, len(classes))
    return Dataset(root.resolve().name, split, root / "images", labelled, classes, (IGNORE,))


def _stem(path: PurePosixPath) -> str:
    """Name a file by its path without the suffix, as masks and lists do."""
    return path.with_suffix("").as_posix()


def _by_stem(samples: Iterable[Sample]) -> dict[str, Sample]:
    index: dict[str, Sample] = {}
    for sample in samples:
        stem = _stem(PurePosixPath(sample.id))
        if stem in index:
            raise DataError(
                f"{index[stem].id} and {sample.id} would share the mask {stem}.png. Expected one "
                "image for every name; rename one of the two."
            )
        index[stem] = sample
    return index


def _find_masks(folder: Path) -> dict[str, Path]:
    files = (path for path in folder.rglob("*") if path.suffix.lower() == ".png")
    return {_stem(PurePosixPath(path.relative_to(folder).as_posix())): path for path in files}


def _label(samples: dict[str, Sample], masks: dict[str, Path], classes: int) -> tuple[Sample, ...]:
    """Give every sample that has a mask its lazy label, in the order of ids."""
    labelled = (
        replace(sample, load_label=partial(read_label, masks[stem], classes))
        if stem in masks
        else sample
        for stem, sample in samples.items()
    )
    return tuple(sorted(labelled, key=lambda sample: sample.id))


def _read_classes(path: Path) -> tuple[str, ...]:
    try:
        names = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text: {error}. Save it as UTF-8.") from None
    while names and not names[-1]:
        names.pop()
    if "" in names or not 2 <= len(names) <= IGNORE:
        raise DataError(
            f"{path} names {len(names)} classes on as many lines, blank ones included. Expected 2 "
            f"to {IGNORE} lines, one name each, ids in order from 0; {IGNORE} means ignore."
        )
    return tuple(names)


def _count_classes(masks: Iterable[Path], names: Path) -> tuple[str, ...]:
    """Learn how many classes there are from the masks, where no file names them."""
    highest = -1
    for mask in masks:
        label = read_label(mask, IGNORE)
        highest = max(highest, int(label.max(initial=0, where=label != IGNORE)))
    if highest < 1:
        raise DataError(
            f"The masks beside {names.parent / 'images'} hold one class only: ids 0 and {IGNORE}, "
            f"which means ignore. Expected class ids 0, 1, ...; save a black and white mask as 0 "
            f"and 1, and name the classes in {names}."
        )
    return tuple(f"class {index}" for index in range(highest + 1))
