"""What an ONNX file of a run holds: the graph of its student, and what its scores mean."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from zerolabel import __version__
from zerolabel.errors import ImageError, StoreError, UsageError
from zerolabel.jobs.exporting.graph import NormalisedPupil, PaddedUNet
from zerolabel.jobs.run.model import Model, load
from zerolabel.jobs.run.names import plain
from zerolabel.jobs.run.student import ONNX
from zerolabel.methods.deeplab import Deeplab
from zerolabel.methods.onnx_student import FORMAT, MARK, PREPARE, Config, prepare
from zerolabel.methods.unet import Unet
from zerolabel.stages.pictures import PHOTOS, kept_scale
from zerolabel.store import read_json
from zerolabel.types import Category, Sample


def open_student(run: Path) -> Model:
    """Load the model of a run, if its method is one network that tells categories by itself.

    Args:
        run: a folder with a model.

    Returns:
        The model, on the CPU.

    Raises:
        StoreError: there is no model, or it is damaged.
        UsageError: its method is another one; the message says how to make a student.
    """
    student = f"`zerolabel refine {run} --out STUDENT`, and export STUDENT"
    if (run / ONNX).exists():
        raise UsageError(f"{run} was made with an ONNX file: it is {run / ONNX}. Copy that.")
    if not (run / "model.json").exists():
        raise StoreError(
            f"{run} holds no model to export: model.json is not there. If there are masks, let a "
            f"student learn them: {student}."
        )
    facts = read_json(run / "model.json")
    method = facts.get("method") if isinstance(facts, dict) else None
    if isinstance(method, str) and method not in PREPARE:
        raise UsageError(
            f"{run} was made by {method}, and that is more than one network from photo to "
            f"categories. Expected one of {', '.join(PREPARE)}. Let a student learn its masks: "
            f"{student}."
        )
    return load(run, device="cpu")


def portable(model: Model) -> tuple[nn.Module, Config]:
    """The network of a model as it is exported, and how photos are brought to it.

    Args:
        model: from `open_student`.

    Returns:
        A module of `exporting.graph` in evaluation mode, and the settings.

    Raises:
        UsageError: settings that a graph cannot follow.
    """
    method, config = model.method, model.method.config
    net: nn.Module
    if isinstance(method, Deeplab):
        net, size = NormalisedPupil(method.student()), method.seen_at()
    else:
        assert isinstance(method, Unet)  # `open_student` lets no other one through
        _check_unet(method)
        net, size = PaddedUNet(method.network()), config.size
    return net.eval(), Config(of=method.name, size=size, refine=config.refine, seed=config.seed)


def with_facts(graph: Any, model: Model, config: Config) -> bytes:
    """Write what scores mean into the metadata of a graph.

    Args:
        graph: an `onnx.ModelProto`; its metadata are replaced.
        model: what it was made of.
        config: how photos are brought to it.

    Returns:
        The content of the file.
    """
    del graph.metadata_props[:]
    digest = hashlib.blake2b(graph.SerializeToString(deterministic=True), digest_size=16)
    settings = {k: v for k, v in dataclasses.asdict(config).items() if k != "of"}
    facts = {
        "format": FORMAT,
        "method": config.of,
        "settings": settings,
        "categories": [_plain(category) for category in model.categories],
        "digest": digest.hexdigest(),
        "notes": model.method.notes,
    }
    graph.producer_name, graph.producer_version = MARK, __version__
    graph.metadata_props.add(key=MARK, value=__version__)
    for key, fact in facts.items():
        text = json.dumps(fact, ensure_ascii=False)
        graph.metadata_props.add(key=f"{MARK}.{key}", value=text)
    content: bytes = graph.SerializeToString(deterministic=True)
    return content


def see(samples: Sequence[Sample], config: Config, *, count: int) -> list[NDArray[np.float32]]:
    """Read some photos of a run, evenly spaced, as the network takes them.

    Args:
        samples: all photos.
        config: how photos are brought to the network.
        count: how many at most; those that cannot be read are left out.

    Returns:
        float32 (1, 3, H, W) each.

    Raises:
        UsageError: none can be read.
    """
    found, count = [], min(count, len(samples))
    for i in range(count):
        try:
            found.append(prepare(samples[i * len(samples) // count], config))
        except ImageError:
            continue
    if not found:
        raise UsageError(
            "None of the photos that 8-bit numbers are fitted to can be read. Give others with "
            "--data."
        )
    return found


def _check_unet(method: Unet) -> None:
    config, seen = method.config, kept_scale(method.arrays)
    if seen != PHOTOS:
        raise UsageError(
            f"This unet learned from images of {seen.bands} bands with a scale of their own; an "
            "ONNX file takes photos. Predict with the run itself."
        )
    if config.native or max(config.size) > config.tile:
        raise UsageError(
            "This unet looks at images in tiles (native=true, or a size above tile), which a graph "
            "cannot. Fit it with native=false and a size up to tile, or predict with the run "
            "itself."
        )


def _plain(category: Category) -> dict[str, Any]:
    """A category without its statistics, which are those of other photos."""
    return plain(Category(category.id, category.name, category.colour, naming=category.naming))
