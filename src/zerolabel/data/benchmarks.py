"""Labelled data sets as they are distributed, and a plain pair of folders, images beside masks."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from zerolabel.data.files import Files, Found, find_layout, list_files
from zerolabel.data.labels import read_label, read_raw, read_regions
from zerolabel.data.layouts import FOLDER, Layout
from zerolabel.data.spaces import Space, plain_space, spaces_of
from zerolabel.data.spaces import space as read_space
from zerolabel.errors import DataError, UsageError, unknown_name
from zerolabel.types import IGNORE, Sample


@dataclass(frozen=True)
class Dataset:
    """One split of a labelled data set.

    Attributes:
        name: a key of `LAYOUTS`, or the name of the folder.
        space: its label space; "" where there are regions and no classes.
        split: which part of it; "all" where it is not divided.
        images: the folder that sample ids are relative to.
        samples: sorted by id; an image without a mask has no `load_label`.
        classes: class names, index = id in the loaded labels.
        ignore: values in the files that mean "not scored"; they are loaded as 255.
        listed: how many images the split's list names; None without a list.
    """

    name: str
    space: str
    split: str
    images: Path
    samples: tuple[Sample, ...]
    classes: tuple[str, ...]
    ignore: tuple[int, ...]
    listed: int | None = None


def open_dataset(
    root: str | Path, *, split: str | None = None, space: str | None = None
) -> Dataset | None:
    """Recognise a labelled data set by its folders; labels may be missing.

    Args:
        root: the folder of a data set in `LAYOUTS` (or one above it, as unpacked), or a folder
            with `images` and `masks` or `labels`, and optionally `classes.txt`: one name per line,
            ids in order.
        split: a split of the data set; the default is "val" where there is one. "val:24" takes 24
            images of it, evenly spaced in the order of ids.
        space: a label space of the data set, its default by default; for a plain folder any whose
            raw values its masks hold.

    Returns:
        The data set, or None if the root is none of these, e.g. a folder of photos.

    Raises:
        DataError: the folders are those of a data set, but their content does not fit together.
        UsageError: there is no such split or label space, or the root holds several data sets.
    """
    found = find_layout(Path(root), space)
    if found is None:
        return None
    split, images = _parse(split)
    split = found.choose(split)
    files = list_files(found, split)
    if not files.samples or (files.lost and found.forms[split].shipped is None):
        raise _lost(files)
    if found.layout is FOLDER and not files.samples.keys() & files.paths.keys():
        raise _unpaired(files)
    chosen = choose_space(found, files, space)
    samples = _label(files, chosen, found.layout)
    count = min(images or len(samples), len(samples))
    return Dataset(
        name=found.name,
        space=chosen.name if chosen else "",
        split=f"{split}:{images}" if images else split,
        images=files.images,
        samples=tuple(samples[i * len(samples) // count] for i in range(count)),
        classes=chosen.classes if chosen else (),
        ignore=chosen.ignore if chosen else (),
        listed=len(files.listed) if files.listed is not None else None,
    )


def _parse(split: str | None) -> tuple[str | None, int]:
    """Divide "val:24" into the split and the number of images; 0 stands for all."""
    name, colon, images = (split or "").partition(":")
    if colon and not (images.isdecimal() and int(images)):
        raise UsageError(f"Expected a split such as val, or val:24 for 24 images; found {split!r}.")
    return name or None, int(images or 0)


def choose_space(found: Found, files: Files, name: str | None) -> Space | None:
    """Take a label space of a data set, or learn that of a plain folder.

    Args:
        found: the data set.
        files: of one of its splits.
        name: one of its label spaces, or None for its default; for a plain folder any, or None for
            `classes.txt`, without which the highest id in the masks decides.

    Returns:
        The space; None where there are regions and no classes.

    Raises:
        DataError: the list of classes, or a mask of a folder without one, cannot be used.
        UsageError: the data set has no such label space.
    """
    if found.layout is FOLDER:
        return _folder_space(found, files) if name is None else read_space(name)
    known = spaces_of(found.name)
    if name is None:
        return read_space(known[0]) if known else None
    if name not in known:
        raise unknown_name(f"label space of {found.layout.title}", name, known)
    return read_space(name)


def _label(files: Files, space: Space | None, layout: Layout) -> tuple[Sample, ...]:
    """Give every sample that has a mask its lazy label, in the order of ids."""
    labelled = []
    for name, sample in files.samples.items():
        mask = files.paths.get(name)
        if mask is not None and space is None:
            sample = replace(sample, load_regions=partial(read_regions, mask))
        elif mask is not None and space is not None:
            image = files.images / sample.id if layout.fitted else None
            load_label = partial(read_label, mask, space, reader=layout.reader, image=image)
            sample = replace(sample, load_label=load_label, classes=space.classes)
        labelled.append(sample)
    return tuple(sorted(labelled, key=lambda sample: sample.id))


def _lost(files: Files) -> DataError:
    listed = files.listed or ()
    return DataError(
        f"{files.listing} lists {len(listed)} images, {len(files.lost)} of which are not in "
        f"{files.images}{' such as ' + files.lost[0] if files.lost else ''}. Expected one name per "
        "line, each the name of an image without suffix. Unpack the whole data set, or correct the "
        "list."
    )


def _unpaired(files: Files) -> DataError:
    name, sample = next(iter(files.samples.items()))
    return DataError(
        f"No mask in {files.masks} has the name of an image in {files.images}. Expected {name}.png "
        f"for {sample.id}, found {list(files.paths)[:3] or 'no PNG'}. Rename the masks, or give "
        f"{files.images} itself to use the images without labels."
    )


def _folder_space(found: Found, files: Files) -> Space:
    names = found.base / "classes.txt"
    if names.is_file():
        return plain_space(found.name, _read_classes(names))
    used = [files.paths[key] for key in files.samples if key in files.paths]
    return plain_space(found.name, _count_classes(used, names))


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
        raw: Any = read_raw(mask)
        highest = max(highest, int(raw.max(initial=0, where=raw != IGNORE)))
        if highest > IGNORE:
            raise DataError(
                f"The mask {mask} holds the value {highest}. Expected class ids 0 to {IGNORE - 1}, "
                f"and {IGNORE} for ignore, one byte per pixel. Save the masks with ids from 0 on."
            )
    if highest < 1:
        raise DataError(
            f"The masks beside {names.parent / 'images'} hold one class only: ids 0 and {IGNORE}, "
            f"which means ignore. Expected class ids 0, 1, ...; save a black and white mask as 0 "
            f"and 1, and name the classes in {names}."
        )
    return tuple(f"class {index}" for index in range(highest + 1))
