"""Data sets on disk: recognising one by its folders, and listing the files of a split."""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from pathlib import Path, PurePosixPath

from zerolabel.data.folder import find_images
from zerolabel.data.layouts import FOLDER, LAYOUTS, Form, Layout
from zerolabel.data.spaces import spaces_of
from zerolabel.errors import DataError, UsageError, unknown_name
from zerolabel.types import Sample


@dataclass(frozen=True)
class Found:
    """A data set on disk.

    Attributes:
        name: a key of `LAYOUTS`, or the name of the folder.
        base: the folder that its paths are relative to.
        layout: where its files lie.
    """

    name: str
    base: Path
    layout: Layout

    @cached_property
    def forms(self) -> dict[str, Form]:
        """The splits that are there, each with the form it has."""
        splits: dict[str, Form] = {}
        for form in self.layout.forms:
            for split in form.splits:
                if split not in splits and form.holds(self.base, split):
                    splits[split] = form
        return splits

    def choose(self, split: str | None) -> str:
        """Take the split asked for, by its name or its word in the paths.

        Args:
            split: what the user asked for; None takes "val" where there is one, else the first.

        Raises:
            UsageError: there is no such split.
        """
        if split is None:
            return "val" if "val" in self.forms else next(iter(self.forms))
        for name, form in self.forms.items():
            if split in (name, form.splits[name]):
                return name
        raise unknown_name("split", split, self.forms)


@dataclass(frozen=True)
class Files:
    """The files of one split; none is opened.

    Attributes:
        images: the folder that sample ids are relative to.
        masks: the folder of the masks, which need not exist.
        samples: by the name that image and mask share.
        paths: the masks, by that name; of a listed split those that are listed.
        listing: the list that names the images, for messages; None without one.
        listed: what it names, sorted, each once.
    """

    images: Path
    masks: Path
    samples: dict[str, Sample]
    paths: dict[str, Path]
    listing: Path | None = None
    listed: tuple[str, ...] | None = None

    @property
    def lost(self) -> list[str]:
        """Names that are listed but have no image."""
        return [name for name in self.listed or () if name not in self.samples]


def find_layout(root: Path, space: str | None = None) -> Found | None:
    """Recognise a data set by its folders.

    Args:
        root: a folder that is, or holds, the home of a data set, or has `images` beside `masks` or
            `labels`.
        space: a label space; where several data sets are found, those that have it are meant.

    Returns:
        The data set; None if there is none.

    Raises:
        UsageError: several data sets are there.
    """
    found: dict[Path, Found] = {}
    others: dict[Path, Found] = {}
    for name, layout in LAYOUTS.items():
        for base in (root / place for place in layout.places):
            one = Found(name, base, layout)
            if one.forms:
                wanted = space is None or space in spaces_of(name)
                (found if wanted else others).setdefault(base, one)
    found = found or others
    if len(found) > 1:
        listed = ", ".join(f"{one.layout.title} in {base}" for base, one in found.items())
        raise UsageError(f"{root} holds several data sets: {listed}. Give the folder of one.")
    folder = Found(root.resolve().name, root, FOLDER)
    return next(iter(found.values()), folder if folder.forms else None)


def list_files(found: Found, split: str) -> Files:
    """List the files of one split.

    Args:
        found: the data set.
        split: a key of its `forms`.

    Raises:
        DataError: there is no image, two images share a mask, or the list is empty.
    """
    layout, form = found.layout, found.forms[split]
    images, masks = form.folders(found.base, split)
    samples = _by_name(find_images(images), layout.image_end)
    paths = _find_masks(masks, layout.mask_end, skip=layout.skip)
    listing = form.list_path(found.base, split)
    if listing is not None:
        listed = _read_list(listing)
    elif form.shipped is not None:
        listing = Path(form.shipped.format(split=form.splits[split]))
        listed = read_shipped(listing.name)
    else:
        return Files(images, masks, samples, paths)
    if not listed:
        raise DataError(
            f"{listing} names no image. Expected one name per line, each that of an image without "
            "suffix. Unpack the data set again."
        )
    samples = {name: samples[name] for name in listed if name in samples}
    paths = {name: paths[name] for name in listed if name in paths}
    return Files(images, masks, samples, paths, listing, listed)


def _by_name(samples: Iterable[Sample], end: str) -> dict[str, Sample]:
    """Index samples by the name they share with their masks, which `end` and a suffix follow."""
    index: dict[str, Sample] = {}
    for sample in samples:
        name = PurePosixPath(sample.id).with_suffix("").as_posix().removesuffix(end)
        if name in index:
            raise DataError(
                f"{index[name].id} and {sample.id} would share the mask {name}.png. Expected one "
                "image for every name; rename one of the two."
            )
        index[name] = sample
    return index


def _find_masks(folder: Path, end: str, *, skip: str | None) -> dict[str, Path]:
    """Index the masks below a folder, which may be missing, by what comes before `end`."""
    index = {}
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder).as_posix()
        if relative.lower().endswith(end.lower()) and not (skip and re.search(skip, relative)):
            index[relative[: -len(end)]] = path
    return index


def _read_list(path: Path) -> tuple[str, ...]:
    try:
        return _names(path.read_text(encoding="utf-8").split())
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"The list {path} cannot be read: {error}. Unpack it again.") from None


def read_shipped(name: str) -> tuple[str, ...]:
    """Read a list of image names that comes with this package, sorted."""
    data = resources.files("zerolabel.data").joinpath(f"lists/{name}").read_bytes()
    return _names(gzip.decompress(data).decode().split())


def _names(words: Sequence[str]) -> tuple[str, ...]:
    return tuple(sorted(set(words)))
