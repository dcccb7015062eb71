"""The pictures of a report: small ones inside the page, larger ones beside it."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import numpy as np
from PIL import Image as Pillow

from zerolabel.errors import ZerolabelError
from zerolabel.ops.resize import resize_labels
from zerolabel.outputs.masks import read_mask
from zerolabel.outputs.overlay import colourise, jpeg, overlay, thumbnail
from zerolabel.store import write_bytes
from zerolabel.types import IGNORE, Category, Image, LabelMap

SMALL = 320  # longest side inside the page, pixels
LARGE = 640  # longest side of the linked photos
TILE = 168  # longest side of a crop in a contact sheet
QUALITY = 80


@dataclass(frozen=True)
class View:
    """One picture on a page.

    Attributes:
        kind: "photo", "overlay", "mask" or "region".
        src: what the page shows, a data URI or a relative link.
        full: relative link to a larger version, or "" when there is none.
        width: of what the page shows, pixels.
        height: of what the page shows, pixels.
    """

    kind: str
    src: str
    full: str
    width: int
    height: int


class Pictures:
    """Draws the pictures of one report and puts them where its pages find them."""

    def __init__(self, run: Path, *, categories: Sequence[Category]) -> None:
        self.run = run
        count = 1 + max((category.id for category in categories), default=-1)
        self.colours = np.zeros((count, 3), dtype=np.uint8)
        for category in categories:
            self.colours[category.id] = category.colour

    def of_image(
        self,
        number: int,
        load: Callable[[], Image],
        *,
        mask: str,
        overlay: str | None,
        inline: bool,
    ) -> tuple[list[View], str]:
        """Draw photo, overlay and mask of an image.

        Args:
            number: its place in the report, which names the files written for it.
            load: returns the photo, uint8 (H, W, 3).
            mask: path of the mask inside the run.
            overlay: path of the overlay inside the run, or None.
            inline: put the pictures into the page instead of linking to files.

        Returns:
            The views that could be drawn, and what stopped the others, "" when nothing did.
        """
        shown: list[View] = []
        name = f"photos/{number + 1:06d}"
        try:
            photo = thumbnail(load(), side=LARGE)
            full = self._keep(f"{name}.jpg", jpeg(photo, QUALITY))
            photo = thumbnail(photo, side=SMALL) if inline else photo
            shown.append(_view("photo", photo, jpeg(photo, QUALITY) if inline else None, full))
            labels = resize_labels(read_mask(self.run / mask), photo.shape[:2])
            shown.append(self._overlay(photo, labels, path=overlay, name=name, inline=inline))
            shown.append(self._mask(labels, path=mask, name=name, inline=inline))
        except ZerolabelError as error:
            return shown, str(error)
        return shown, ""

    def of_tile(self, image: Image, *, name: str, inline: bool) -> View:
        """Draw one crop of a contact sheet, into the page or into a file called `name`."""
        small = thumbnail(image, side=TILE)
        data = jpeg(small, QUALITY)
        if inline:
            return _view("region", small, data, "")
        return _view("region", small, None, self._keep(f"tiles/{name}.jpg", data))

    def _overlay(
        self, photo: Image, labels: LabelMap, *, path: str | None, name: str, inline: bool
    ) -> View:
        full = _up(path) if path is not None else ""
        if full and not inline:
            return _view("overlay", photo, None, full)
        data = jpeg(overlay(photo, labels, colours=self.colours), QUALITY)
        if inline:
            return _view("overlay", photo, data, full)
        return _view("overlay", photo, None, self._keep(f"{name}-overlay.jpg", data))

    def _mask(self, labels: LabelMap, *, path: str, name: str, inline: bool) -> View:
        coloured = len(self.colours) <= IGNORE  # a mask of 16 bits shows no colours
        full = _up(path) if coloured else ""
        if full and not inline:
            return _view("mask", labels, None, full)
        picture = colourise(labels, self.colours)
        data = png(picture)
        if inline:
            return _view("mask", picture, data, full)
        return _view("mask", picture, None, self._keep(f"{name}-mask.png", data))

    def _keep(self, name: str, data: bytes) -> str:
        write_bytes(self.run / "report" / name, data)
        return name


def inline_view(kind: str, picture: Image) -> View:
    """Put a picture into the page.

    Args:
        kind: "mask" keeps its colours and edges, anything else is stored as a photo.
        picture: uint8 (H, W, 3), small.

    Returns:
        The view, without a larger version.
    """
    data = png(picture) if kind == "mask" else jpeg(picture, QUALITY)
    return _view(kind, picture, data, "")


def _view(kind: str, picture: Image | LabelMap, data: bytes | None, full: str) -> View:
    """Describe a picture: inline when there is data, else by its link."""
    media = "png" if kind == "mask" else "jpeg"
    inside = f"data:image/{media};base64,{base64.b64encode(data).decode()}" if data else ""
    return View(kind, inside or full, full, picture.shape[1], picture.shape[0])


def _up(path: str) -> str:
    """Link from the report to a file of the run; bytes that are not Unicode survive."""
    return "../" + quote(path.encode("utf-8", "surrogateescape"))


def png(image: Image) -> bytes:
    """Encode an image as PNG: uint8 (H, W, 3) to the file's content."""
    buffer = io.BytesIO()
    Pillow.fromarray(image).save(buffer, "PNG", compress_level=9)
    return buffer.getvalue()
