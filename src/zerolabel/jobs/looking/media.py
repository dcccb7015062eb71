"""What the attention viewer is given: images of any kind, or the frames of a clip, in batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from itertools import islice
from pathlib import Path

from zerolabel.data.video import Clip, is_clip, open_clip
from zerolabel.errors import ImageError, UsageError
from zerolabel.jobs.fit import open_samples
from zerolabel.outputs.masks import mask_names, read_mask
from zerolabel.types import Image, LabelMap, Sample

BATCH = 4  # images or frames that are in memory at once

Fits = Callable[[int, int], object]  # (height, width) of an image; raises `ImageError`


@dataclass(frozen=True)
class Item:
    """An image or a frame.

    Attributes:
        id: of the image; the number of the frame.
        name: what its pictures are called, a relative POSIX path without a suffix.
        image: uint8 (H, W, 3).
        truth: reads the ground truth, integer (H, W), if there is one.
    """

    id: str
    name: str
    image: Image
    truth: Callable[[], LabelMap] | None = None


@dataclass(frozen=True)
class Media:
    """Images or a clip.

    Attributes:
        total: how many images or frames; for a clip, it may be a guess.
        batches: starts reading; takes what may refuse an image by its size, and a dict for the
            reasons (id -> reason) of images that are left out.
        digest: returns a hash of the content.
        clip: the clip, or None for images.
        name: of the clip's pictures.
    """

    total: int
    batches: Callable[[Fits, dict[str, str]], Iterator[list[Item]]]
    digest: Callable[[], str]
    clip: Clip | None = None
    name: str = ""


def open_media(
    source: Path,
    *,
    frames: bool = False,
    fps: Fraction | None = None,
    split: str | None = None,
    truth: Path | None = None,
) -> Media:
    """Find out what a source is, and open it.

    Args:
        source: an image, a folder, a data set, a video or an animated image.
        frames: whether a folder is one clip.
        fps: of the clip, in place of what it says.
        split: of a data set.
        truth: masks of the images: a folder with their relative paths, or one file for one image;
            by default the labels of the data set, if it has any.

    Returns:
        Its batches.

    Raises:
        DataError: nothing there can be read.
        UsageError: what was asked does not fit the source.
    """
    if frames and not source.is_dir():
        raise UsageError(f"--frames is for a folder of frames, and {source} is none. Leave it out.")
    if frames or (not source.is_dir() and is_clip(source)):
        if split is not None or truth is not None:
            raise UsageError(f"{source} is a clip: it has neither --split nor --truth.")
        clip = open_clip(source, fps=fps)
        name = source.resolve().name if source.is_dir() else source.stem
        return Media(clip.count, partial(_clip_batches, clip, name), clip.digest, clip, name)
    if fps is not None:
        raise UsageError("--fps is for clips. For a folder of frames add --frames.")
    samples, _ = open_samples(source, split)
    names = mask_names([sample.id for sample in samples])
    read = None if truth is None else _reader(truth, names)
    digest = partial(_digest, samples)
    return Media(len(samples), partial(_image_batches, samples, names, read), digest)


def _reader(truth: Path, names: dict[str, str]) -> Callable[[str], LabelMap]:
    """Return what reads the mask of an image by its id."""
    if truth.is_dir():
        return lambda image: read_mask(truth / names[image])
    if not truth.is_file():
        raise UsageError(f"{truth} does not exist. Give --truth a folder of masks or one mask.")
    if len(names) > 1:
        raise UsageError(f"{truth} is one mask for {len(names)} images. Give a folder of masks.")
    return lambda image: read_mask(truth)


def _digest(samples: Sequence[Sample]) -> str:
    return " ".join(sample.digest() for sample in samples)


def _image_batches(
    samples: Sequence[Sample],
    names: dict[str, str],
    read: Callable[[str], LabelMap] | None,
    fits: Fits,
    failures: dict[str, str],
) -> Iterator[list[Item]]:
    for start in range(0, len(samples), BATCH):
        batch = []
        for sample in samples[start : start + BATCH]:
            try:
                image = sample.load()
                fits(image.shape[0], image.shape[1])
            except ImageError as error:
                failures[sample.id] = str(error)
                continue
            truth = sample.load_label if read is None else partial(read, sample.id)
            name = names[sample.id].removesuffix(".png")
            batch.append(Item(sample.id, name, image, truth))
        yield batch


def _clip_batches(
    clip: Clip, name: str, fits: Fits, failures: dict[str, str]
) -> Iterator[list[Item]]:
    try:
        fits(*clip.size)
    except ImageError as error:
        raise UsageError(f"{clip.path}: {error}.") from None
    done = 0
    with closing(clip.frames()) as reading:  # so that no ffmpeg is left if the job ends early
        while images := list(islice(reading, BATCH)):
            yield [Item(str(done + i), name, image) for i, image in enumerate(images)]
            done += len(images)
