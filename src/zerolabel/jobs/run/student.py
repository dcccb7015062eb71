"""An ONNX file as a model: it predicts, and a run made with it keeps a copy of it."""

from __future__ import annotations

from pathlib import Path

from zerolabel import backbones
from zerolabel.errors import UsageError
from zerolabel.jobs.run.model import Model
from zerolabel.jobs.run.names import keep_names, parse
from zerolabel.methods.onnx_student import OnnxStudent, read_network
from zerolabel.store import write_bytes

ONNX = "model.onnx"  # in a run directory, where others have model.json and model.safetensors
DEVICES = ("auto", "cpu")


class OnnxModel(Model):
    """A student out of an ONNX file and its categories.

    Attributes:
        digest: hash of the graph and its weights, not of the names of categories.
    """

    def __init__(self, path: Path) -> None:
        """Open a file.

        Args:
            path: the file.

        Raises:
            StoreError: it cannot be read.
            UsageError: onnxruntime is missing, or the file is not of this project.
        """
        network, self._content = read_network(path)
        self.digest = str(network.facts["digest"])
        student = OnnxStudent(network, backbones.load(backbones.NONE, device="cpu"))
        super().__init__(student, tuple(parse(entry) for entry in network.facts["categories"]))

    def save(self, folder: str | Path) -> None:
        """Copy the file into a run; see `Model.save`."""
        write_bytes(Path(folder) / ONNX, self._content)


def holds_student(path: Path) -> bool:
    """Whether a path is a file, or a run that was made with an ONNX file."""
    return path.is_file() or (path / ONNX).is_file()


def load_student(path: Path, *, weights: str | Path | None, device: str) -> OnnxModel:
    """Load a student from an ONNX file, or from a run that was made with one.

    Args:
        path: file or folder; categories have the names that those of a folder were given.
        weights: None, as the file holds its own.
        device: "auto" or "cpu".

    Returns:
        The model.

    Raises:
        StoreError: the file cannot be read.
        UsageError: onnxruntime is missing, the file is not of this project, or it was asked for
            what it cannot do.
    """
    if weights is not None:
        raise UsageError(f"{path} holds its weights, and needs no others. Leave --weights out.")
    if device not in DEVICES:
        raise UsageError(
            f"ONNX files run on the processor here, found --device {device}. Leave it out, or "
            "predict with the run that was exported."
        )
    if path.is_file():
        return OnnxModel(path)
    model = OnnxModel(path / ONNX)
    model.categories = keep_names(path, model.categories)
    return model
