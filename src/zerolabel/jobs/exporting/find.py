"""The masks of a run, and the photos that they belong to."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from zerolabel.data.benchmarks import open_dataset
from zerolabel.errors import DataError, StoreError, UsageError
from zerolabel.jobs.run.photos import open_photos
from zerolabel.jobs.run.place import place_of
from zerolabel.outputs.masks import mask_names
from zerolabel.store import read_json

LISTING = Path("cache", "data.json")  # the images of a run and their digests
SHOWN = 3  # names in a message


@dataclass(frozen=True)
class Found:
    """The masks of a run.

    Attributes:
        pairs: id of the photo and path of the mask in `masks`, relative POSIX paths, in the order
            of ids; where nobody knows the photos, the mask's path stands for both.
        unmasked: images of the run that have no mask.
    """

    pairs: list[tuple[str, str]]
    unmasked: int


def find_masks(run: Path, data: str | Path | None, split: str | None, *, names: bool) -> Found:
    """Find the masks of a run, and the photo of each.

    The run's own list of images says their names, also where the photos have moved since. If it is
    gone, the photos are looked at.

    Args:
        run: a finished run.
        data: where the photos are now, or None.
        split: of a data set, or None.
        names: whether the photos' names must be known.

    Returns:
        What was found.

    Raises:
        DataError: there is no mask, a mask belongs to no photo, or the photos are gone.
        UsageError: nothing says where the photos are.
    """
    folder = run / "masks"
    masks = {path.relative_to(folder).as_posix() for path in folder.rglob("*.png")}
    masks = {mask for mask in masks if not any(part.startswith(".") for part in mask.split("/"))}
    if not masks:
        raise DataError(
            f"{run} holds no masks: expected PNGs in {folder}. Run the command that made it again, "
            "or export another run."
        )
    try:
        ids = _ids(run, data, split)
    except (UsageError, DataError):
        if names:
            raise
        return Found([(mask, mask) for mask in sorted(masks)], 0)
    owned = mask_names(ids)
    strays = sorted(masks - set(owned.values()))
    if strays:
        more = f" and {len(strays) - SHOWN} more" if len(strays) > SHOWN else ""
        raise DataError(
            f"No photo of {run} belongs to the masks {', '.join(strays[:SHOWN])}{more}. Delete "
            "what is no mask of it, or give --data with the folder or data set that it was made on."
        )
    pairs = [(image, mask) for image, mask in sorted(owned.items()) if mask in masks]
    return Found(pairs, len(owned) - len(pairs))


def find_root(run: Path, data: str | Path | None, split: str | None) -> Path:
    """Find the folder that the ids of a run's images are relative to.

    Args:
        run: a finished run.
        data: where the photos are now; None takes the place that the run names.
        split: of a data set, or None.

    Returns:
        The folder, absolute.

    Raises:
        DataError: the place is gone.
        UsageError: nothing says where the photos are.
    """
    path, split = place_of(run, data, split)
    dataset = open_dataset(path, split=split) if path.is_dir() else None
    if dataset is not None:
        return dataset.images.resolve()
    return (path if path.is_dir() else path.parent).resolve()


def check_photo(photo: Path, shape: tuple[int, ...], *, needed: bool) -> None:
    """Check that a photo has the size of its mask.

    Args:
        photo: its path.
        shape: (H, W) of the mask.
        needed: whether it must be there.

    Raises:
        DataError: it has moved, or another size.
    """
    if not photo.is_file():
        if not needed:
            return
        raise DataError(
            f"The photo {photo} is not there. Give --data with the folder or data set that the "
            "photos are in now."
        )
    try:
        with Image.open(photo) as picture:
            size = picture.size
    except (OSError, ValueError, Image.DecompressionBombError):
        return  # bands, for example: only their reader knows the size
    # a rotation in the EXIF block may turn the sides
    if sorted(size) != sorted(shape):
        raise DataError(
            f"The photo {photo} has {size[1]} x {size[0]} pixels and its mask {shape[0]} x "
            f"{shape[1]}: a tool would lay one beside the other. Segment the photos as they are "
            "now, or give --data with those that were segmented."
        )


def _ids(run: Path, data: str | Path | None, split: str | None) -> list[str]:
    """The ids of all images of a run, also of those without a mask: their names depend on all."""
    try:
        listed = read_json(run / LISTING)
    except StoreError:  # "safe to delete"; masks made elsewhere have none
        listed = None
    if isinstance(listed, dict) and listed:
        return [str(image) for image in listed]
    return [sample.id for sample in open_photos(run, data, split)]
