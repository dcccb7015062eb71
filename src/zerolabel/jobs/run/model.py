"""A fitted method as a thing to keep: predict, save, load.

A model is two files. `model.json` names the hash of its `model.safetensors`, so that a pair of
different fits, left by an interruption, is noticed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, overload

import numpy as np
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from zerolabel import __version__, backbones
from zerolabel.backbones import Backbone
from zerolabel.data.folder import file_digest, find_images, from_arrays, read_image
from zerolabel.errors import ImageError, StoreError, WeightsError
from zerolabel.jobs.run.names import parse, plain
from zerolabel.jobs.run.settings import build
from zerolabel.methods.base import BATCH, Evidence, Method
from zerolabel.outputs.colours import palette
from zerolabel.stages.refine import refine
from zerolabel.store import Store, below, read_json, write_bytes, write_json
from zerolabel.types import IGNORE, Category, Image, LabelMap, Sample, Segmentation

FACTS = frozenset(["tensors", "method", "config", "backbone", "weights", "notes", "categories"])
__all__ = ["Model", "build", "load", "new_categories"]

LEARNED = "backbone."  # prefix of what the backbone learned, in model.safetensors


class Model:
    """A fitted method and its categories.

    Attributes:
        method: fitted.
        categories: index = id.
        failures: id -> reason for the images that `fit` could not read.
    """

    def __init__(self, method: Method, categories: tuple[Category, ...] | None = None) -> None:
        self.method = method
        self.categories = categories or new_categories(method.k, method.names())
        self.failures: dict[str, str] = {}

    @overload
    def predict(self, image: Image) -> Segmentation: ...

    @overload
    def predict(
        self, image: str | Path
    ) -> Segmentation | Iterator[tuple[Sample, Segmentation]]: ...

    def predict(
        self, image: Image | str | Path
    ) -> Segmentation | Iterator[tuple[Sample, Segmentation]]:
        """Segment an image, an image file, or every image below a folder.

        Args:
            image: uint8 (H, W, 3) RGB, values 0..255, or a path.

        Returns:
            The category of every pixel; of a folder what `predict_files` yields.

        Raises:
            ImageError: the array is no such image, or the file cannot be read.
            DataError: the folder holds no image.
        """
        if isinstance(image, (str, Path)):
            if Path(image).is_dir():
                return self.predict_files(image)
            image = read_image(Path(image))
        found = f"{getattr(image, 'dtype', type(image).__name__)} {getattr(image, 'shape', '')}"
        right = isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.size
        if not right or image.ndim != 3 or image.shape[2] != 3:
            raise ImageError(
                f"Expected a uint8 array of shape (H, W, 3) or a path, found {found}. Convert with "
                "np.asarray(picture.convert('RGB'))."
            )
        [(_, evidence)], _ = self.method.evidence([from_arrays("image", image)], store=Store())
        return Segmentation(self.label_map(evidence, image), self.categories)

    def predict_files(
        self, path: str | Path, *, failures: dict[str, str] | None = None
    ) -> Iterator[tuple[Sample, Segmentation]]:
        """Segment an image file, or every image below a folder, one after another.

        Args:
            path: a file or a folder.
            failures: takes id -> reason for images that cannot be read; None makes them errors.

        Yields:
            Sample and segmentation, sorted by id.

        Raises:
            DataError: there is no image.
            ImageError: an image cannot be read, and `failures` is None.
        """
        samples = find_images(path)
        for start in range(0, len(samples), BATCH):
            batch = samples[start : start + BATCH]
            found, unread = self.method.evidence(batch, store=Store())
            if failures is None and unread:
                name, reason = next(iter(unread.items()))
                raise ImageError(f"{name}: {reason}")
            if failures is not None:
                failures |= unread
            for sample, evidence in found:
                label_map = self.label_map(evidence, sample.load())
                yield sample, Segmentation(label_map, self.categories)

    def label_map(self, evidence: Evidence, image: Image) -> LabelMap:
        """Refine evidence to the size of the photo, as the method's settings say.

        Args:
            evidence: of the photo; labels in it are taken as they are.
            image: uint8 (H, W, 3), the photo.

        Returns:
            (H, W), uint8 up to 255 categories, else uint16.
        """
        if evidence.labels is not None:
            return _decided(evidence.labels, image.shape[:2], K=len(evidence.scores))
        name = self.method.config.refine
        return refine(evidence.scores, image, name=name, covered=evidence.covered)

    def save(self, folder: str | Path) -> None:
        """Write `model.safetensors` and `model.json`.

        Args:
            folder: made if missing.

        Raises:
            StoreError: it cannot be written.
        """
        folder, method = Path(folder), self.method
        learned = {LEARNED + name: value for name, value in method.backbone.state().items()}
        tensors = {name: value.contiguous() for name, value in (method.arrays | learned).items()}
        write_bytes(folder / "model.safetensors", save_tensors(tensors))
        facts = {
            "zerolabel": __version__,
            "tensors": file_digest(folder / "model.safetensors"),
            "method": method.name,
            "config": dataclasses.asdict(method.config),
            "backbone": method.backbone.name,
            "weights": None if learned else method.backbone.digest,
            **({"others": method.others()} if method.others() else {}),
            "notes": method.notes,
            "class_names": method.class_names,
            "categories": [plain(category) for category in self.categories],
        }
        write_json(folder / "model.json", facts)


def load(folder: str | Path, *, weights: str | Path | None = None, device: str = "auto") -> Model:
    """Load a model from a folder that `Model.save`, `fit` or `segment` wrote, or an ONNX file.

    Args:
        folder: holds `model.safetensors` and `model.json`, or `model.onnx`; or is an ONNX file.
        weights: the backbone's weights file, if they are not in the cache.
        device: where the backbone runs.

    Returns:
        The model.

    Raises:
        StoreError: the files are missing or damaged.
        UsageError: an ONNX file that is not of this project, or onnxruntime is missing.
        WeightsError: the backbone's weights are missing, or are others than those of the fit.
    """
    from zerolabel.jobs.run.student import holds_student, load_student  # which is a kind of Model

    if holds_student(Path(folder)):
        return load_student(Path(folder), weights=weights, device=device)
    facts, tensors = _read(Path(folder))
    backbone = backbones.load(facts["backbone"], weights=weights, device=device)
    arrays = restored(tensors, backbone)
    method = build(facts["method"], backbone, settings=facts["config"])
    if facts["weights"] not in (None, method.backbone.digest):
        raise WeightsError(
            f"The model was fitted with other weights of {backbone.name} (hash {facts['weights']}) "
            f"than these ({method.backbone.digest}). Give the right file with --weights."
        )
    for name, digest in method.others().items():
        there = facts.get("others", {}).get(name, digest)
        if digest != there:
            raise WeightsError(
                f"The model was fitted with other weights of {name} (hash {there}) than these "
                f"({digest}). Put the right ones in their place."
            )
    method.arrays = arrays
    method.notes = facts["notes"]
    method.class_names = tuple(facts.get("class_names", ()))  # older models have none
    return Model(method, tuple(parse(entry) for entry in facts["categories"]))


def restored(tensors: Mapping[str, Tensor], backbone: Backbone) -> dict[str, Tensor]:
    """Give a backbone what it had learned, if it is one that does, and return what is the method's.

    A residual network of a method is called "backbone" too.
    """
    learned = below(tensors, LEARNED) if backbone.learns else {}
    if not learned:
        return dict(tensors)
    backbone.restore(learned)
    return {name: value for name, value in tensors.items() if not name.startswith(LEARNED)}


def new_categories(k: int, names: Mapping[int, str] | None = None) -> tuple[Category, ...]:
    """Categories without statistics yet, in the project's colours; unnamed ones have numbers."""
    colours, known = palette(k).tolist(), names or {}
    return tuple(Category(i, known.get(i, f"category {i}"), tuple(colours[i])) for i in range(k))


def _decided(labels: Tensor, size: tuple[int, ...], *, K: int) -> LabelMap:
    """Check what a method decided by itself; what does not fit is its own mistake."""
    if labels.shape != size:
        raise ValueError(f"labels have the size {tuple(labels.shape)}, the photo has {size}")
    if labels.min() < 0 or labels.max() >= K:
        low, high = int(labels.min()), int(labels.max())
        raise ValueError(f"labels are {low}..{high}, the categories are 0..{K - 1}")
    label_map: LabelMap = labels.cpu().numpy().astype(np.uint16 if K > IGNORE else np.uint8)
    return label_map


def _read(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read the two files of a model, and check that they belong together."""
    path = folder / "model.safetensors"
    facts = read_json(folder / "model.json")
    missing = FACTS - (facts.keys() if isinstance(facts, dict) else set())
    if missing:
        raise StoreError(
            f"{folder / 'model.json'} is no model: it lacks {', '.join(sorted(missing))}. Give the "
            "folder that `zerolabel fit` or `zerolabel segment` wrote."
        )
    try:
        tensors: dict[str, Tensor] = load_tensors(path.read_bytes())
    except (OSError, SafetensorError) as error:
        raise StoreError(f"{path} cannot be read: {error}") from None
    if file_digest(path) != facts["tensors"]:
        raise StoreError(
            f"{path} and model.json are not of one fit. Run the command that wrote them again."
        )
    return facts, tensors
