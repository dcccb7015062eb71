"""From a student to an ONNX graph: photos of 0..255 in, probabilities out, any size.

Shapes: `B` images, `H W` pixels, `h w` grid of the student, `K` categories.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zerolabel.backbones.registry import IMAGENET_MEAN, IMAGENET_STD
from zerolabel.errors import UsageError
from zerolabel.jobs.exporting.bicubic import bicubic
from zerolabel.methods.onnx_student import INPUT, INSTALL, OUTPUT
from zerolabel.networks.unet import UNet

OPSET = 20  # the first with Gelu as one operator; onnxruntime knows it since 1.17
AXES = {INPUT: ("B", "3", "H", "W"), OUTPUT: ("B", "K", "h", "w")}
SILENT = "torchvision is not installed"  # whose operators no student has


class NormalisedPupil(nn.Module):
    """A student that sees photos as its training did."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net
        self.mean, self.std = (
            nn.Buffer(torch.tensor(colour)[:, None, None] * 255)
            for colour in (IMAGENET_MEAN, IMAGENET_STD)
        )

    def forward(self, image: Tensor) -> Tensor:
        """Photos (B, 3, H, W) of 0..255 -> probabilities (B, K, h, w)."""
        logits: Tensor = self.net((image - self.mean) / self.std)
        return logits.softmax(dim=1)


class PaddedUNet(nn.Module):
    """A U-Net whose padding is part of the graph for every size.

    `UNet.forward` decides by the size of an image how it is continued; a graph decides nothing, so
    this one always reflects. They differ for photos whose sides are below 2**depth pixels only.
    """

    def __init__(self, net: UNet) -> None:
        super().__init__()
        self.net = net

    def forward(self, image: Tensor) -> Tensor:
        """Photos (B, 3, H, W) of 0..255 -> probabilities (B, K, H, W)."""
        net, (height, width) = self.net, image.shape[2:]
        multiple = 1 << net.config.depth
        z = _reflected(_reflected(image / 255, 2, multiple), 3, multiple)
        before: list[Tensor] = []
        for level, module in enumerate(net.down):
            z = module(F.max_pool2d(z, 2) if level else z)
            before.append(z)
        before.pop()
        for rise, module in zip(net.rise, net.up, strict=True):
            z = module(torch.cat([before.pop(), rise(z)], dim=1))
        found: Tensor = net.head(z)
        return found[:, :, :height, :width].softmax(dim=1)


def trace(net: nn.Module, size: tuple[int, int]) -> Any:
    """Turn a network into an ONNX graph whose batch, height and width are free.

    Args:
        net: one of the modules above, on the CPU, in evaluation mode.
        size: (H, W) in pixels of the photo that it is traced with.

    Returns:
        An `onnx.ModelProto` of operator set `OPSET`, with `INPUT` float32 (B, 3, H, W) and `OUTPUT`
        float32 (B, K, h, w).

    Raises:
        UsageError: onnx or onnxscript is missing.
    """
    try:
        import onnxscript  # noqa: F401  (torch's exporter is made of it)
    except ImportError:
        raise UsageError(f"To write ONNX files onnx and onnxscript are needed. {INSTALL}") from None
    free = torch.export.Dim.DYNAMIC
    with _without_noise(), torch.no_grad():
        program = torch.onnx.export(
            net,
            (torch.zeros(2, 3, *size),),  # of one image torch would make a constant
            dynamo=True,
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_shapes={INPUT: {0: free, 2: free, 3: free}},
            opset_version=OPSET,
            custom_translation_table={torch.ops.aten.upsample_bicubic2d.vec: bicubic},
            verbose=False,
        )
    assert program is not None  # it is without a file to write to
    return _tidy(program.model_proto)


def _tidy(model: Any) -> Any:
    """Name the axes, and drop what the exporter notes down for itself: places in source files."""
    graph = model.graph
    for value in (*graph.input, *graph.output):
        for name, axis in zip(AXES[value.name], value.type.tensor_type.shape.dim, strict=True):
            if not axis.HasField("dim_value"):
                axis.dim_param = name
    del graph.value_info[:]  # shapes in other letters; every runtime infers them
    for part in (model, graph, *graph.node, *graph.input, *graph.output, *graph.initializer):
        del part.metadata_props[:]
        part.ClearField("doc_string")
    return model


def _reflected(x: Tensor, axis: int, multiple: int) -> Tensor:
    """Continue images at the end of an axis to a multiple, by reflection."""
    length = x.shape[axis]
    places = torch.arange(length + -length % multiple, device=x.device)
    back = (2 * (length - 1) - places).clamp(min=0)
    return x.index_select(axis, torch.where(places < length, places, back))


@contextmanager
def _without_noise() -> Iterator[None]:
    """Drop two messages of torch's exporter about itself; everything else is heard."""

    def heard(record: logging.LogRecord) -> bool:
        return SILENT not in record.getMessage()

    log = logging.getLogger("torch.onnx._internal.exporter._registration")
    log.addFilter(heard)
    try:
        with warnings.catch_warnings():
            # torch copies a class of its own that it has deprecated
            warnings.filterwarnings("ignore", ".*LeafSpec", FutureWarning)
            yield
    finally:
        log.removeFilter(heard)
