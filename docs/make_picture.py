"""Make the README's picture from a fresh demo: photo, overlay and mask of four images.

    python docs/make_picture.py

Run by hand after a change that shows. Columns: the two photos that come with the package (authors
and licence in src/zerolabel/data/photos/LICENCE.md), then two planted images.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from PIL import Image, ImageOps

from zerolabel.jobs.demo import demo
from zerolabel.outputs.colours import palette
from zerolabel.outputs.masks import read_mask
from zerolabel.outputs.overlay import colourise

TARGET = Path(__file__).parent / "picture.png"
LIMIT = 250_000  # bytes
CELL, GAP = (270, 180), 6  # (W, H) of one picture, pixels between two
COLUMNS = (  # run, image
    ("photos", "china.jpg"),
    ("photos", "flower.jpg"),
    ("world", "images/world-000.png"),
    ("world", "images/world-007.png"),
)


def column(folder: Path, run: str, image: str) -> list[Image.Image]:
    """Photo, overlay and mask of one image, cropped to a cell."""
    stem = Path(image).with_suffix("")
    masks = folder / run / "masks"
    found = next(masks.rglob(f"{stem.name}.png"))
    overlay = (folder / run / "overlays" / found.relative_to(masks)).with_suffix(".jpg")
    labels = read_mask(found)
    mask = Image.fromarray(colourise(labels, palette(int(labels.max()) + 1)))
    photo = Image.open(folder / "data" / run / image).convert("RGB")
    pictures = (photo, Image.open(overlay), mask)
    return [ImageOps.fit(picture, CELL, method=Image.Resampling.LANCZOS) for picture in pictures]


def main() -> None:
    """Run the demo in a temporary folder and lay four of its images out."""
    with tempfile.TemporaryDirectory() as folder:
        done = demo(Path(folder, "demo"))
        columns = [column(done.folder, run, image) for run, image in COLUMNS]
    width, height = (n * (side + GAP) - GAP for n, side in zip((4, 3), CELL, strict=True))
    sheet, gaps = Image.new("RGB", (width, height)), Image.new("L", (width, height), 255)
    for x, pictures in enumerate(columns):
        for y, picture in enumerate(pictures):
            corner = (x * (CELL[0] + GAP), y * (CELL[1] + GAP))
            sheet.paste(picture, corner)
            gaps.paste(0, (*corner, corner[0] + CELL[0], corner[1] + CELL[1]))
    few = sheet.quantize(255, kmeans=1)
    few = sheet.quantize(palette=few, dither=Image.Dither.FLOYDSTEINBERG)
    few.putpalette((few.getpalette() or [])[: 3 * 255] + [255] * 3)
    few.paste(255, mask=gaps)  # the last entry is transparent: gaps fit light and dark pages
    few.save(TARGET, optimize=True, transparency=255)
    if TARGET.stat().st_size > LIMIT:
        raise SystemExit(f"{TARGET} is larger than {LIMIT / 1e3:.0f} kB: make CELL smaller.")


if __name__ == "__main__":
    main()
