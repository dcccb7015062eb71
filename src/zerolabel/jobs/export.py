"""Export the masks of a finished run to the formats of annotation tools."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from zerolabel.data.geometry import FULL
from zerolabel.errors import DataError, StoreError, UsageError, unknown_name
from zerolabel.jobs.exporting.find import Found, check_photo, find_masks, find_root
from zerolabel.jobs.exporting.folder import check_empty, whole_folder
from zerolabel.jobs.naming.finished import read_finished
from zerolabel.jobs.run.claim import state
from zerolabel.jobs.scoring.facts import read_facts
from zerolabel.outputs.exports import coco, cvat, label_studio, labelme, png
from zerolabel.outputs.exports.items import Format, Item, Plan, cut
from zerolabel.outputs.masks import read_mask
from zerolabel.store import Progress, Store, write_json
from zerolabel.types import Category

COMMAND = "export"  # marks a folder of ours in its `run.json`
NETWORK = "onnx"  # the format of a student, see jobs/export_network.py
FORMATS: dict[str, Format] = {  # of masks
    "coco": coco.FORMAT,
    "labelme": labelme.FORMAT,
    "cvat": cvat.FORMAT,
    "label-studio": label_studio.FORMAT,
    "png": png.FORMAT,
}
BATCH = 16  # images between two signs of progress


@dataclass(frozen=True)
class Exported:
    """What came out.

    Attributes:
        path: the folder.
        format: a key of `FORMATS`.
        images: how many.
        annotations: in all of them.
        notes: what the user should know.
    """

    path: Path
    format: str
    images: int
    annotations: int
    notes: tuple[str, ...]


def export(
    run: str | Path,
    out: str | Path,
    *,
    format: str,
    parts: bool = False,
    minimum: int = 1,
    data: str | Path | None = None,
    split: str | None = None,
    prefix: str | None = None,
    progress: Progress | None = None,
) -> Exported:
    """Write the masks of a run as an annotation tool reads them; the run stays as it is.

    Images stream through, and the folder has its name only when everything is in it.

    Args:
        run: a folder with masks that `segment`, `predict` or `refine` wrote.
        out: a folder that is missing or empty.
        format: a key of `FORMATS`.
        parts: one annotation for each connected part, not for each category of an image.
        minimum: pixels below which an annotation is left out; its pixels have no category then.
        data: where the photos are now; None takes the place that the run itself names.
        split: of a data set; None takes that of the run, or the default if `data` is given.
        prefix: what makes an address of a photo's path; only for "label-studio".
        progress: called with (work, items done, items in all).

    Returns:
        What was written.

    Raises:
        ZerolabelError: anything that a user can mend; it says how.
    """
    root, place = Path(run), Path(out)
    way = _check_options(format, parts=parts, minimum=minimum, prefix=prefix)
    categories = read_finished(root)
    _check_place(root, place)
    _check_geometry(root, way)
    address = label_studio.PREFIX if prefix is None else prefix
    plan = Plan(str(root), _check_colours(root, categories), place.resolve(), address)
    way.check(plan)
    found = find_masks(root, data, split, names=way.names)
    photos = _find_photos(root, data, split, way)
    read = _Reader(root, photos, way, len(categories), parts, minimum)
    counts: Counter[str] = Counter()

    def items() -> Iterator[Item]:
        for _, batch in Store(report=progress).track("export", found.pairs, BATCH):
            for image, mask in batch:
                item = read.item(image, mask)
                counts.update(images=1, annotations=len(item.regions.areas))
                yield item

    with whole_folder(place) as folder:
        job = {"command": COMMAND, "format": format, "parts": parts, "minimum": minimum}
        write_json(folder / "run.json", state("done", {**job, "run": str(root.resolve())}))
        way.write(folder, items(), plan)
    return Exported(place, format, counts["images"], counts["annotations"], _notes(found))


@dataclass(frozen=True)
class _Reader:
    """Reads the masks of a run, one at a time."""

    run: Path
    photos: Path | None
    way: Format
    categories: int
    parts: bool
    minimum: int

    def item(self, image: str, mask: str) -> Item:
        """Read and cut the mask of one image."""
        path = self.run / "masks" / mask
        label_map = read_mask(path)
        photo = None if self.photos is None else self.photos / image
        if photo is not None:
            check_photo(photo, label_map.shape, needed=self.way.photos)
        regions = cut(
            label_map, self.categories, parts=self.parts, minimum=self.minimum, path=str(path)
        )
        return Item(image, mask, photo, regions)


def _check_options(format: str, *, parts: bool, minimum: int, prefix: str | None) -> Format:
    if format == NETWORK:
        raise UsageError(
            "A network is one file and no masks: `zerolabel.jobs.export_network.export_network` "
            "writes it, or `zerolabel export RUN --format onnx --out FILE.onnx`."
        )
    if format not in FORMATS:
        raise unknown_name("format", format, (*FORMATS, NETWORK))
    way = FORMATS[format]
    if parts and not way.parts:
        others = ", ".join(name for name, other in FORMATS.items() if other.parts)
        raise UsageError(
            f"{format} holds one category for each pixel and no annotations, so that parts cannot "
            f"be apart. Leave --parts out, or choose --format {others}."
        )
    if minimum < 1:
        raise UsageError(f"--minimum is a number of pixels from 1 on; found {minimum}.")
    if prefix is not None and format != "label-studio":
        raise UsageError(f"--prefix goes with --format label-studio, not {format}. Leave it out.")
    return way


def _check_place(run: Path, out: Path) -> None:
    check_empty(out)
    masks = (run / "masks").resolve()
    if masks in (out.resolve(), *out.resolve().parents):
        raise UsageError(f"{out} is among the masks of the run. Choose another --out.")


def _check_geometry(run: Path, way: Format) -> None:
    """Refuse masks that have another size than the photos they shall lie over."""
    geometry = (read_facts(run) or {}).get("geometry", FULL)
    if way.over and geometry != FULL:
        raise UsageError(
            f"The masks of {run} were made through the geometry {geometry} and have its size, not "
            "that of the photos; a tool would lay them askew. Segment again without --geometry, or "
            "export with --format png."
        )


def _check_colours(run: Path, categories: Sequence[Category]) -> Sequence[Category]:
    for category in categories:
        colour = category.colour
        right = len(colour) == 3 and all(type(c) is int and 0 <= c <= 255 for c in colour)
        if not right:
            raise StoreError(
                f"{run / 'categories.json'}: category {category.id} has the colour "
                f"{list(colour)}; expected red, green and blue, whole numbers of 0 to 255."
            )
    return categories


def _find_photos(run: Path, data: str | Path | None, split: str | None, way: Format) -> Path | None:
    """Find the folder of the photos; where only names matter, it may have moved."""
    if not way.over:
        return None
    try:
        return find_root(run, data, split)
    except (UsageError, DataError):
        if way.photos or data is not None:
            raise
        return None


def _notes(found: Found) -> tuple[str, ...]:
    if not found.unmasked:
        return ()
    some = "1 image of the run has" if found.unmasked == 1 else f"{found.unmasked} images have"
    return (f"{some} no mask and {'is' if found.unmasked == 1 else 'are'} left out",)
