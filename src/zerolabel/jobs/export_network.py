"""Export the student of a run as an ONNX file: one network from photo to scores, no clustering."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from zerolabel.errors import UsageError
from zerolabel.jobs.exporting.graph import trace
from zerolabel.jobs.exporting.int8 import PHOTOS, quantise
from zerolabel.jobs.exporting.network import open_student, portable, see, with_facts
from zerolabel.jobs.run.photos import open_photos
from zerolabel.methods.onnx_student import Network, onnxruntime
from zerolabel.store import Progress, write_bytes

SUFFIX = ".onnx"
TOLERANCE = 1e-3  # between scores of torch and of onnxruntime; they differ by about 1e-6


@dataclass(frozen=True)
class ExportedNetwork:
    """What came out.

    Attributes:
        path: the file.
        method: that was exported.
        categories: K.
        size: (H, W) in pixels to which photos are squashed for it.
        agreement: of "int8": share of places of the photos it was fitted to where it decides as the
            floats do; None without.
    """

    path: Path
    method: str
    categories: int
    size: tuple[int, int]
    agreement: float | None


def export_network(
    run: str | Path,
    out: str | Path,
    *,
    int8: bool = False,
    data: str | Path | None = None,
    split: str | None = None,
    progress: Progress | None = None,
) -> ExportedNetwork:
    """Write the student of a run as an ONNX file; the run stays as it is.

    Args:
        run: a folder that `refine`, `fit` or `segment` wrote, of the method deeplab or unet.
        out: a file that is not there yet and ends with ".onnx".
        int8: compute in 8-bit numbers, fitted to some photos of the run.
        data: where these photos are, or others like them; None takes the place that the run names.
        split: of a data set; None takes that of the run, or the default if `data` is given.
        progress: called with (work, items done, items in all).

    Returns:
        What was written.

    Raises:
        ZerolabelError: anything that a user can mend; it says how.
    """
    root, place = Path(run), Path(out)
    _check(place, int8=int8, given=data is not None or split is not None)
    say = progress or (lambda work, done, total: None)
    model = open_student(root)
    net, config = portable(model)
    onnxruntime()  # before the work, which takes a while
    photos = []
    if int8:
        photos = see(open_photos(root, data, split), config, count=PHOTOS)
    say("export", 0, 1 + int8)
    graph = trace(net, config.size)
    plain = with_facts(graph, model, config)
    content, agreement = plain, None
    _check_scores(net, Network(plain, name=str(place)), config.size)
    if int8:
        say("export", 1, 2)
        config = dataclasses.replace(config, precision="int8")
        content = with_facts(quantise(graph, photos), model, config)
        agreement = _agreement(plain, content, photos)
    write_bytes(place, content)
    say("export", 1 + int8, 1 + int8)
    return ExportedNetwork(place, config.of, model.method.k, config.size, agreement)


def _check(out: Path, *, int8: bool, given: bool) -> None:
    if out.suffix.lower() != SUFFIX:
        raise UsageError(f"A network goes into a file. Give --out a name like {out.name}{SUFFIX}.")
    if out.exists():
        raise UsageError(f"{out} is there already. Choose another --out, or delete it.")
    if given and not int8:
        raise UsageError("Only --int8 looks at photos. Leave --data and --split out.")


def _check_scores(net: nn.Module, network: Network, size: tuple[int, int]) -> None:
    """Compare what a file computes with what the student does, on noise of another shape.

    Raises:
        RuntimeError: torch's exporter or onnxruntime is at fault.
    """
    rows, columns = (max(32, side // 2 + 8) for side in size)
    generator = torch.Generator().manual_seed(0)
    images = torch.rand((2, 3, rows, columns), generator=generator) * 255
    with torch.no_grad():
        expected = net(images).numpy()
    found = network.scores(images.numpy())
    if found.shape != expected.shape or not np.allclose(found, expected, atol=TOLERANCE):
        raise RuntimeError("the scores of the exported network differ from those of the student")


def _agreement(plain: bytes, small: bytes, photos: Sequence[NDArray[np.float32]]) -> float:
    """The share of places where two files decide alike."""
    files = [Network(content, name="the file") for content in (plain, small)]
    same = [np.equal(*(file.scores(photo).argmax(1) for file in files)) for photo in photos]
    return float(np.mean([np.mean(places) for places in same]))
