"""A show on a planted world and on two real photos, both of which come with the package."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from PIL import Image as Pillow

from zerolabel.data.synthetic import world
from zerolabel.errors import UsageError
from zerolabel.jobs.evaluate import evaluate
from zerolabel.jobs.fit import Options
from zerolabel.jobs.run.finish import Run
from zerolabel.jobs.segment import segment
from zerolabel.store import Progress, write_bytes
from zerolabel.types import Image, LabelMap, Sample

CATEGORIES, IMAGES, SIZE, SEED = 5, 12, (240, 320), 0  # of the planted world
PHOTOS = ("china.jpg", "flower.jpg")  # CC BY 2.0; LICENCE.md beside them names the authors
LICENCE = "LICENCE.md"
PHOTO_CATEGORIES = 3  # two photos are too few to choose a number from


@dataclass(frozen=True)
class Demo:
    """What the demo left behind.

    Attributes:
        folder: everything is below it.
        planted: the run on the planted world.
        miou: Hungarian mIoU of that run against what was planted, 0..1.
        accuracy: its pixel accuracy, 0..1.
        real: the run on the two photos, for which there is no ground truth.
    """

    folder: Path
    planted: Run
    miou: float
    accuracy: float
    real: Run


def demo(out: str | Path, *, progress: Progress | None = None) -> Demo:
    """Write a planted world and two photos, and segment each in a run of its own.

    Args:
        out: folder for `data/world`, `data/photos` and the runs `world` and `photos`.
        progress: called with (work, items done, items in all).

    Returns:
        Both runs, and the score of the planted one.

    Raises:
        UsageError: the folder holds something else.
        StoreError: it cannot be written.
    """
    out = Path(out)
    if out.exists() and not (out.is_dir() and ((out / "data").is_dir() or not any(out.iterdir()))):
        raise UsageError(f"{out} is not empty. Give --out a new folder.")
    world_data, photo_data = out / "data" / "world", out / "data" / "photos"
    write_world(world_data, planted_world())
    write_photos(photo_data)
    # Planted textures are what the filter bank is for; the photos get what photos get by default.
    textures = Options(backbone="filterbank")
    planted = segment(world_data, out / "world", options=textures, progress=progress)
    scored = evaluate(planted.path, world_data, protocol="full")
    fixed = Options(settings={"k": PHOTO_CATEGORIES})
    real = segment(photo_data, out / "photos", options=fixed, progress=progress)
    return Demo(out, planted, scored["miou"], scored["pixel_accuracy"], real)


def planted_world() -> list[Sample]:
    """The world of the demo: textures of five kinds on twelve images."""
    return world(CATEGORIES, images=IMAGES, size=SIZE, seed=SEED)


def write_world(root: Path, samples: Sequence[Sample]) -> None:
    """Write samples with labels as a folder of `images` beside `masks`.

    Args:
        root: made if missing.
        samples: with labels.
    """
    for sample in samples:
        write_bytes(root / "images" / sample.id, _png(sample.load()))
        if sample.load_label is not None:
            write_bytes(root / "masks" / sample.id, _png(sample.load_label()))
    names = "".join(f"texture {i}\n" for i in range(CATEGORIES))
    write_bytes(root / "classes.txt", names.encode())


def write_photos(folder: Path) -> None:
    """Copy the two photos, and the page that names their authors and licence."""
    source = resources.files("zerolabel.data").joinpath("photos")
    for name in (*PHOTOS, LICENCE):
        write_bytes(folder / name, source.joinpath(name).read_bytes())


def _png(pixels: Image | LabelMap) -> bytes:
    buffer = io.BytesIO()
    Pillow.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()
