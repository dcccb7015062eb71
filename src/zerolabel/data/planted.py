"""Tiny planted data sets in the folders of the published ones, for tests and rehearsals."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

from zerolabel.data.files import read_shipped
from zerolabel.data.layouts import LAYOUTS, WHOLE, Layout
from zerolabel.data.spaces import space, spaces_of
from zerolabel.data.synthetic import world
from zerolabel.errors import unknown_name
from zerolabel.types import Image, LabelMap

CLASSES = 6  # most classes that are planted
DIVIDED = ("train", "val", "test", WHOLE)  # splits planted by default, where a data set has them


def plant(
    name: str,
    root: str | Path,
    *,
    images: int = 4,
    size: tuple[int, int] = (96, 128),
    seed: int = 0,
    splits: Sequence[str] | None = None,
) -> Path:
    """Write a tiny data set of coloured regions in the folders of a published one.

    Every class has a colour and a pattern of its own, the same in all splits. Where the data set
    has a value that is not scored, it frames every image, one pixel wide.

    Args:
        name: a key of `LAYOUTS`.
        root: folder that takes the data set's own folder, as its archive would unpack.
        images: images per split.
        size: (H, W) of every image in pixels.
        seed: fixes the content.
        splits: which splits; all that share no image by default.

    Returns:
        The data set's own folder, for `open_dataset`.

    Raises:
        UsageError: an unknown data set or split.
    """
    if name not in LAYOUTS:
        raise unknown_name("data set", name, LAYOUTS)
    layout = LAYOUTS[name]
    forms = {split: form for form in reversed(layout.forms) for split in form.splits}
    chosen = [split for split in DIVIDED if split in forms] if splits is None else splits
    for split in chosen:
        if split not in forms:
            raise unknown_name(f"split of {layout.title}", split, forms)
    values, ignored = _values(name)
    samples = world(len(values), images=images * len(chosen), size=size, seed=seed)
    base = Path(root) / layout.homes[0]
    for i, split in enumerate(chosen):
        part = range(i * images, (i + 1) * images)
        names = _names(layout, split, part)
        for stem, sample in zip(names, samples[part.start : part.stop], strict=True):
            assert sample.load_label is not None  # a world is labelled
            raw = values[sample.load_label()]
            if ignored is not None:
                raw = np.pad(raw[1:-1, 1:-1], 1, constant_values=ignored)
            photo, mask = forms[split].folders(base, split)
            _write_image(photo / f"{stem}{layout.image_end}{layout.suffix}", sample.load())
            _write_mask(mask / f"{stem}{layout.mask_end}", raw, layout.reader)
        listing = forms[split].list_path(base, split)
        if listing is not None:
            listing.parent.mkdir(parents=True, exist_ok=True)
            listing.write_text("".join(f"{stem}\n" for stem in names), encoding="utf-8")
    return base


def _values(name: str) -> tuple[NDArray[np.int64], int | None]:
    """Choose raw values of classes from the whole of the default label space, and one ignored."""
    spaces = spaces_of(name)
    if not spaces:
        return np.arange(1, CLASSES + 1), None  # regions of BSDS500 count from 1
    known = space(spaces[0])
    firsts = {int(known.lut[raw]): raw for raw in sorted(known.known, reverse=True)}
    ids = np.linspace(0, len(known.classes) - 1, min(CLASSES, len(known.classes))).round()
    values = np.array([firsts[int(i)] for i in ids], np.int64)
    return values, known.ignore[-1] if known.ignore else None


def _names(layout: Layout, split: str, part: range) -> list[str]:
    """Name images as the data set does; where a list is shipped, by names that it holds."""
    word = next(form.splits[split] for form in layout.forms if split in form.splits)
    for form in layout.forms:
        if form.shipped is not None and word in form.splits.values():
            return list(read_shipped(form.shipped.format(split=word))[: len(part)])
    return [layout.naming.format(i) for i in part]


def _write_image(path: Path, image: Image) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Pillow.fromarray(image).save(path, quality=95)


def _write_mask(path: Path, raw: LabelMap, reader: str) -> None:
    """Write a mask as the reader of that name expects it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if reader == "text":
        np.savetxt(path, raw, fmt="%d")
    elif reader == "colours":
        on = raw[..., None] >> np.array([2, 1, 0]) & 1
        Pillow.fromarray((255 * on).astype(np.uint8)).save(path)
    elif reader == "regions":
        _write_regions(path, raw)
    else:
        Pillow.fromarray(raw.astype(np.uint8)).save(path)


def _write_regions(path: Path, raw: LabelMap) -> None:
    """Write two annotators: one saw every region, the other only pairs of them."""
    from scipy.io import savemat  # as in labels.read_regions

    truth = np.empty((1, 2), object)
    for a, seen in enumerate((raw, (raw + 1) // 2)):
        edges = np.zeros(seen.shape, np.uint8)
        edges[:, :-1] |= seen[:, :-1] != seen[:, 1:]
        edges[:-1] |= seen[:-1] != seen[1:]
        truth[0, a] = {"Segmentation": seen.astype(np.uint16), "Boundaries": edges}
    savemat(path, {"groundTruth": truth})
