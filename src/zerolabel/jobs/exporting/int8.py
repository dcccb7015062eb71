"""Whole numbers for a student: convolutions by ranges seen before, linear layers as they go.

Measured, see docs/benchmarks.md: convolutions are only faster where the ranges of their inputs and
outputs are known beforehand, and the activations are unsigned; linear layers gain as much if their
range is taken from what they see, and lose less. Attention between patches stays in floats.
"""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zerolabel.methods.onnx_student import INPUT, onnxruntime

PHOTOS = 16  # that the ranges are taken from
LINEAR = ["MatMul", "Gemm"]


def quantise(model: Any, photos: Sequence[NDArray[np.float32]]) -> Any:
    """Turn the convolutions and linear layers of a graph into products of 8-bit numbers.

    The first convolution and the last layer stay in floats: they are little work, and every bit of
    colours and scores counts.

    Args:
        model: an `onnx.ModelProto` from `graph.trace`.
        photos: float32 (1, 3, H, W) of 0..255, as the student will see such.

    Returns:
        Another `onnx.ModelProto`, of standard operators, with the same inputs and outputs.

    Raises:
        UsageError: onnxruntime is missing.
    """
    onnxruntime()
    import onnx
    from onnxruntime import quantization as way
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with tempfile.TemporaryDirectory() as folder, _quiet():
        plain, ranged, done = (Path(folder, f"{i}.onnx") for i in range(3))
        onnx.save(model, ranged)
        quant_pre_process(ranged, plain, skip_symbolic_shape=True)
        convolutions, products = _kept(onnx.load(plain).graph)
        way.quantize_static(
            plain,
            ranged,
            _Reader(photos),
            quant_format=way.QuantFormat.QDQ,
            op_types_to_quantize=["Conv"],
            nodes_to_exclude=convolutions,
            per_channel=True,
            reduce_range=True,  # 7 bits of weights: processors without VNNI would overflow
            activation_type=way.QuantType.QUInt8,  # signed ones are not fused, and no faster
            weight_type=way.QuantType.QInt8,
            calibrate_method=way.CalibrationMethod.Percentile,
            extra_options={"CalibStridedMinMax": 1},  # one photo's activations in memory at a time
        )
        way.quantize_dynamic(
            ranged,
            done,
            op_types_to_quantize=LINEAR,
            nodes_to_exclude=products,
            per_channel=True,
            reduce_range=True,
            weight_type=way.QuantType.QInt8,
        )
        return onnx.load(done)


class _Reader:
    """Hands photos to the calibration one by one; the names of its methods are onnxruntime's."""

    def __init__(self, photos: Sequence[NDArray[np.float32]]) -> None:
        self._photos, self._rest = photos, iter(photos)

    def __len__(self) -> int:
        return len(self._photos)

    def set_range(self, start_index: int, end_index: int) -> None:
        self._rest = iter(self._photos[start_index:end_index])

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        photo = next(self._rest, None)
        return None if photo is None else {INPUT: photo}


def _kept(graph: Any) -> tuple[list[str], list[str]]:
    """Names of what stays in floats: the first and last convolutions; products of no layer."""
    weights = {tensor.name for tensor in graph.initializer if len(tensor.dims) == 2}
    convolutions = [node.name for node in graph.node if node.op_type == "Conv"]
    products = [
        node.name for node in graph.node if node.op_type in LINEAR and node.input[1] not in weights
    ]
    return convolutions[:1] + convolutions[-1:], products


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep what the library prints, and its advice on preparing graphs, from the screen."""
    log = logging.getLogger()
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        log.setLevel(before)
