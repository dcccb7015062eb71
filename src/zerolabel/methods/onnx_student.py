"""A student out of an ONNX file: one small network that onnxruntime runs, and no training.

It is no method of `METHODS`, as nobody fits it; it predicts as the method did that was exported.
Shapes: `H W` pixels, `h w` grid of the student, `K` categories.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from zerolabel.backbones import Backbone
from zerolabel.errors import StoreError, UsageError
from zerolabel.methods.base import Anatomy
from zerolabel.methods.pixels import PixelMethod, anatomy
from zerolabel.stages import denoise
from zerolabel.stages.pictures import PHOTOS, picture
from zerolabel.store import Store
from zerolabel.types import Sample

INPUT, OUTPUT = "image", "scores"  # names in the graph
FORMAT = 1  # of the metadata
MARK = "zerolabel"  # the key that says whose file it is; all others begin with it
FACTS = ("format", "method", "settings", "categories", "digest", "notes")
INSTALL = "Install it with `pip install 'zerolabel[onnx]'`."


@dataclass(frozen=True, kw_only=True)
class Config:
    """What of a method's settings matters to predict.

    Attributes:
        of: the method that was exported.
        precision: "float32" or "int8".
        size: (H, W) in pixels to which photos are squashed for the network.
        refine: see stages/refine.py.
        seed: of the training.
    """

    of: str = "deeplab"
    precision: str = "float32"
    size: tuple[int, int] = (224, 224)
    refine: str = "guided"
    seed: int = 0


def _squashed(sample: Sample, size: tuple[int, int]) -> Tensor:
    return denoise.small(sample.load(), size).float()


def _picture(sample: Sample, size: tuple[int, int]) -> Tensor:
    return picture(sample, PHOTOS, size=size)


# how the methods that can be exported look at a photo: as float32 (3, H, W) of 0..255
PREPARE: Mapping[str, Callable[[Sample, tuple[int, int]], Tensor]] = {
    "deeplab": _squashed,
    "unet": _picture,
}


def prepare(sample: Sample, config: Config) -> NDArray[np.float32]:
    """Read a photo as the network takes it.

    Args:
        sample: the photo.
        config: says how.

    Returns:
        float32 (1, 3, *size), RGB of 0..255, resized with antialiasing.

    Raises:
        ImageError: it cannot be read.
    """
    seen: NDArray[np.float32] = PREPARE[config.of](sample, config.size)[None].contiguous().numpy()
    return seen


class Network:
    """An ONNX file in onnxruntime, on the processor, with as many threads as torch has.

    Attributes:
        facts: what its metadata say: "zerolabel" (the version) and `FACTS`, read from JSON.
    """

    def __init__(self, content: bytes, *, name: str) -> None:
        """Open a file.

        Args:
            content: of the file.
            name: of the file, for messages.

        Raises:
            UsageError: onnxruntime is missing, or the file is not of this project.
        """
        runtime = onnxruntime()
        asked = runtime.SessionOptions()
        asked.intra_op_num_threads = torch.get_num_threads()
        asked.log_severity_level = 3  # errors; what it says of its own rewriting helps nobody
        try:
            self._session = runtime.InferenceSession(
                content, asked, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # it has no common base but Exception
            raise UsageError(
                f"{name} is no ONNX file that onnxruntime {runtime.__version__} can run: "
                f"{str(error).splitlines()[0]} Expected one that `zerolabel export RUN --format "
                "onnx` wrote."
            ) from None
        self.facts = _facts(self._session.get_modelmeta().custom_metadata_map, name)

    def scores(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Run it: images (B, 3, H, W) of 0..255 -> probabilities (B, K, h, w)."""
        [found] = self._session.run([OUTPUT], {INPUT: images})
        scores: NDArray[np.float32] = found
        return scores


def onnxruntime() -> Any:
    """Import onnxruntime, which only those need who run ONNX files.

    Raises:
        UsageError: it is not installed.
    """
    try:
        import onnxruntime as runtime
    except ImportError:
        raise UsageError(
            f"ONNX files are run by onnxruntime, which is not here. {INSTALL}"
        ) from None
    return runtime


class OnnxStudent(PixelMethod):
    """A student out of an ONNX file; photos are seen one by one.

    In whole numbers the scale of a layer is that of all it sees at once, and no mask shall depend
    on other photos; on a processor a batch is no faster either.
    """

    name = "onnx"
    PRESETS = {"default": Config()}
    config: Config

    def __init__(self, network: Network, backbone: Backbone) -> None:
        """Make it from an open file; the backbone is "none"."""
        facts = network.facts
        settings = facts["settings"] | {"size": tuple(facts["settings"]["size"])}
        super().__init__(Config(of=facts["method"], **settings), backbone)
        self.network = network
        self.notes = list(facts["notes"])

    @property
    def k(self) -> int:
        """See `Method.k`."""
        return len(self.network.facts["categories"])

    def fit(self, samples: Sequence[Sample], *, store: Store) -> None:
        """Refuse: what is in the file has learned."""
        raise UsageError("An ONNX file cannot learn. Refine a run, and export the student.")

    def look_into(self, sample: Sample, *, store: Store) -> Anatomy:
        """See `PixelMethod.look_into`; categories have the names in the file."""
        names = {entry["id"]: entry["name"] for entry in self.network.facts["categories"]}
        return anatomy(self._look(sample), names)

    def _look(self, sample: Sample) -> Tensor:
        return torch.from_numpy(self.network.scores(prepare(sample, self.config))[0])


def read_network(path: Path) -> tuple[Network, bytes]:
    """Open an ONNX file.

    Args:
        path: the file.

    Returns:
        The network, and the content of the file.

    Raises:
        StoreError: it cannot be read.
        UsageError: onnxruntime is missing, or the file is not of this project.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror or error}.") from None
    return Network(content, name=str(path)), content


def _facts(metadata: Mapping[str, str], name: str) -> dict[str, Any]:
    """Read the metadata of a file, and check that this version knows them."""
    if MARK not in metadata:
        raise UsageError(
            f"{name} does not say what its scores mean. Expected a file that `zerolabel export RUN "
            "--format onnx` wrote, found another one."
        )
    try:
        facts = {key: json.loads(metadata[f"{MARK}.{key}"]) for key in FACTS}
        known = facts["format"] == FORMAT and facts["method"] in PREPARE
    except (KeyError, ValueError):
        known = False
    if not known:
        raise UsageError(
            f"{name} was written by zerolabel {metadata[MARK]} in a way that this version does not "
            "know. Export it again, or install that version."
        )
    return facts | {MARK: metadata[MARK]}
