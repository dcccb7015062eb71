"""A student out of an ONNX file against the pipeline that it learned from, and int8 against floats.

The student learns the masks that `datus` finds in the photos, for a few steps: speed does not
depend on how well. Both then segment the same photos into new runs in this process, from files,
without report and overlays.

python benchmarks/onnx_student.py [--photos 100] [--threads 2] [--rounds 1] [--steps 60]
"""

from __future__ import annotations

import argparse
import os
import tempfile
from functools import partial
from itertools import count
from pathlib import Path

STEPS = 60
BARS = {"student": 5.0, "int8": 1.5}
ROUNDS = 5  # of the network alone


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--photos", type=int, default=100)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=1, help="of whole runs")
    parser.add_argument("--steps", type=int, default=STEPS, help="of the student's training")
    asked = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(asked.threads)  # read when torch is imported below
    with tempfile.TemporaryDirectory() as folder:
        measure(Path(folder), asked)


def measure(root: Path, asked: argparse.Namespace) -> None:
    from common import gather, voc_photos
    from timing import best_of, gemm_ms

    from zerolabel.jobs.export_network import export_network
    from zerolabel.jobs.fit import Options
    from zerolabel.jobs.predict import predict
    from zerolabel.jobs.refine import refine
    from zerolabel.jobs.segment import segment

    every = voc_photos()
    step = max(1, len(every) // asked.photos)
    photos = gather(every[::step][: asked.photos], root / "photos")
    plain = {"overlays": False, "report": False}
    print(f"2048^3 float32 GEMM: {gemm_ms():.0f} ms, {asked.threads} threads")
    segment(photos, root / "run", options=Options(), **plain)
    settings = {"iterations": asked.steps}
    refine(root / "run", root / "student", settings=settings, **plain)
    files = {name: root / f"{name}.onnx" for name in ("float32", "int8")}
    export_network(root / "student", files["float32"])
    made = export_network(root / "student", files["int8"], int8=True)

    runs = (root / f"out{i}" for i in count())  # a new one every time: nothing is done already
    contestants = {
        "datus": lambda: segment(photos, next(runs), options=Options(), **plain),
        "torch": lambda: predict(root / "student", photos, next(runs), **plain),
        "float32": lambda: predict(files["float32"], photos, next(runs), **plain),
        "int8": lambda: predict(files["int8"], photos, next(runs), **plain),
    }
    seconds = best_of(contestants, asked.rounds)
    print(f"{asked.photos} photos to masks on disk, after one untimed round of each:")
    for name, value in seconds.items():
        ratio = seconds["datus"] / value
        print(f"  {name:8} {asked.photos / value:6.2f} photos/s, {ratio:.2f} x datus")
    best = seconds["datus"] / min(seconds["float32"], seconds["int8"])
    print(f"  the best of both files: {best:.2f} x (bar {BARS['student']} x)")
    networks(files)
    agree(root, [root / "out2", root / "out3"])
    print(f"int8 decides as before on {made.agreement:.2%} of the places it was fitted to")
    print(f"2048^3 float32 GEMM: {gemm_ms():.0f} ms")


def networks(files: dict[str, Path]) -> None:
    """Time the network alone, one photo at a time, as it is used."""
    import numpy as np
    from timing import best_of

    from zerolabel.methods.onnx_student import read_network

    shape = (1, 3, 224, 224)
    photo = np.random.default_rng(0).integers(0, 256, shape).astype(np.float32)
    runs = {}
    for name, path in files.items():
        network = read_network(path)[0]
        runs[name] = partial(repeated, network.scores, photo)
    seconds = best_of(runs, ROUNDS)
    for name, value in seconds.items():
        print(f"  network {name:8} {1e3 * value / REPEATS:.1f} ms a photo")
    ratio = seconds["float32"] / seconds["int8"]
    print(f"  int8 is {ratio:.2f} x as fast (bar {BARS['int8']} x)")


REPEATS = 5  # photos in a round


def repeated(function, argument) -> None:  # type: ignore[no-untyped-def]
    for _ in range(REPEATS):
        function(argument)


def agree(root: Path, runs: list[Path]) -> None:
    """Compare the masks of files with those of torch."""
    import numpy as np

    from zerolabel.outputs.masks import read_mask

    first = root / "out1" / "masks"
    for run, name in zip(runs, ("float32", "int8"), strict=True):
        same = [
            np.mean(read_mask(path) == read_mask(run / "masks" / path.name))
            for path in sorted(first.iterdir())
        ]
        print(f"  masks of {name}: as torch's on {np.mean(same):.4%} of the pixels")


if __name__ == "__main__":
    main()
