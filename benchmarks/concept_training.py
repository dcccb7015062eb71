"""Training of ACSeg's concept generator at the paper's size, from features that are kept.

Batches of 64 images of 196 planted patches with 384 channels, five concepts, six steps; what a
computer chooses by itself between float32 and bfloat16. The time of 2,500 steps is that of some
steps, times their share.

    python benchmarks/concept_training.py
"""

from __future__ import annotations

import time

import torch
from timing import gemm_ms

from zerolabel.data.synthetic import shared_directions
from zerolabel.networks.concepts import ConceptConfig, concept_generator
from zerolabel.training.concepts import ConceptTrainer, ConceptTraining, batches
from zerolabel.training.precision import use_amp

IMAGES, SHARD = 256, 16
TIMED, WARM = 50, 5  # steps
STEPS, MOST_S = 2500, 600


def main() -> None:
    x, _ = shared_directions(IMAGES, patches=196, dim=384)
    patches = torch.from_numpy(x).half()
    amp = use_amp("auto", torch.device("cpu"))
    trainer = ConceptTrainer(
        concept_generator(ConceptConfig(dim=384)), ConceptTraining(lr=3e-4, amp=amp)
    )
    stream = batches(
        lambda shard: patches[SHARD * shard : SHARD * (shard + 1)],
        [SHARD] * (IMAGES // SHARD),
        batch=64,
        seed=0,
    )
    print(f"2048^3 float32 GEMM: {gemm_ms():.0f} ms, {torch.get_num_threads()} threads")
    for _ in range(WARM):
        trainer.learn(next(stream))
    seconds = []
    for _ in range(TIMED):
        began = time.perf_counter()
        trainer.learn(next(stream))
        seconds.append(time.perf_counter() - began)
    step = sorted(seconds)[TIMED // 2]
    print(f"{'bfloat16' if amp else 'float32'}: {1e3 * step:.0f} ms a step (median of {TIMED})")
    print(f"{STEPS} steps: {STEPS * step / 60:.1f} min (at most {MOST_S / 60:.0f})")
    if step * STEPS > MOST_S:
        raise SystemExit("Slower than it should be.")


if __name__ == "__main__":
    main()
