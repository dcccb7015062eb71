"""What a student of masks costs: seconds per training step and per photo, beside a GEMM of 2048^3.

The first photos of PASCAL VOC's `train` and their labels, squashed and cropped as `refine` does,
21 categories; steps in float32 and, which some processors multiply faster, bfloat16.
The crops are drawn before the clock starts; how long that takes is a column of its own.

    ZEROLABEL_DATA=FOLDER OMP_NUM_THREADS=1 python benchmarks/students.py
"""

from __future__ import annotations

import time

import torch
from common import data_root
from timing import best_of, gemm_ms

from zerolabel.backbones import NONE, load, pupils
from zerolabel.backbones.student import normalise
from zerolabel.data.benchmarks import open_dataset
from zerolabel.methods.configs import pick
from zerolabel.methods.deeplab import PRESETS, Deeplab
from zerolabel.stages import denoise
from zerolabel.training.denoise import DenoiseTrainer
from zerolabel.training.lessons import Lessons, Pages
from zerolabel.training.scenes import SceneConfig
from zerolabel.training.supervised import SupervisedTraining

PHOTOS, STEPS, MINUTES = 24, 3, 20
CLASSES = 21
NAMES = ("default", "deeplabv3-16")


def step_seconds(preset: str, *, amp: bool) -> tuple[float, float]:
    """Seconds of the fastest step, and of drawing its crops."""
    c, side = PRESETS[preset], min(PRESETS[preset].size)
    found = open_dataset(data_root("voc"), split=f"train:{PHOTOS}")
    assert found is not None
    training: SupervisedTraining = pick(SupervisedTraining, c, amp=amp)
    lessons = Lessons(scene=SceneConfig(short=side, crop=side, ratio=c.ratio), distort=c.distort)
    samples = [denoise.squashed(s, (2 * side, 2 * side)) for s in found.samples]
    pages = Pages(samples, lessons, training)
    net = pupils.start(c, classes=CLASSES, seed=0).net
    trainer = DenoiseTrainer(net, training, patience=1)
    for step in range(PHOTOS):  # every photo is read
        pages.batch(step)
    began = time.perf_counter()
    images, labels = pages.batch(0)
    drawn = time.perf_counter() - began
    taken = best_of({"step": lambda: trainer.learn(normalise(images), labels)}, STEPS)
    return taken["step"], drawn


def look_seconds(preset: str) -> float:
    """Seconds in which a photo that is read and squashed becomes probabilities."""
    method = Deeplab(PRESETS[preset], load(NONE, device="cpu"))
    method.arrays = pupils.start(method.config, classes=CLASSES, seed=0).net.state_dict()
    net = method.student()
    images = torch.zeros(1, 3, *method.config.size, dtype=torch.uint8)
    return best_of({"look": lambda: denoise.look(net, images)}, STEPS)["look"]


def main() -> None:
    threads = torch.get_num_threads()
    print(f"{threads} threads; GEMM 2048^3 {gemm_ms():.0f} ms")
    print("preset          weights     batch   s/step  s/crops  steps in 20 min")
    for name in NAMES:
        for amp in (False, True):
            step, drawn = step_seconds(name, amp=amp)
            kind = "bfloat16" if amp else "float32"
            steps = MINUTES * 60 / (step + drawn)
            batch = PRESETS[name].batch
            print(f"{name:15} {kind:10} {batch:6} {step:8.2f} {drawn:8.3f} {steps:10.0f}")
        print(f"{name:15} a photo: {look_seconds(name):.3f} s")
    print(f"GEMM 2048^3 {gemm_ms():.0f} ms")


if __name__ == "__main__":
    main()
