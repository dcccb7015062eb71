"""TransFGU's two long parts: the crop stage, and a bootstrapping round.

Crops: four VOC photos, every window of the published rule for VOC, ViT-S/16 with random weights,
crops of 224 pixels; how much of the time goes through the backbone. Round: 160 VOC photos at 320
pixels, 21 categories, crops of 160 pixels, the backbone that comes along, 20 epochs; the time is
that of some steps, times their share, with planted responses.

    python benchmarks/transfgu.py
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from common import voc_photos
from timing import gemm_ms
from torch import Tensor

from zerolabel import backbones
from zerolabel.backbones import Backbone
from zerolabel.data.folder import find_images
from zerolabel.data.transforms import load_batch
from zerolabel.networks.mask_transformer import MaskTransformer, decoder, mask_transformer_config
from zerolabel.stages.crops import Crops, bank
from zerolabel.store import Store
from zerolabel.training.bootstrap import Bootstrapping, BootstrapTrainer, views
from zerolabel.training.precision import use_amp

PHOTOS, SHARE = 4, 0.85
IMAGES, EPOCHS, K, MOST_S = 160, 20, 21, 360
BATCH, TIMED, WARM = 16, 6, 2  # images of a step; steps


def crops() -> float:
    """Share of the crop stage that is spent in forwards."""
    backbone = backbones.load("random-vits16")
    samples = [find_images(photo)[0] for photo in voc_photos()[:PHOTOS]]
    options = Crops(betas=(0.6, 0.5, 0.4, 0.3), windows="code", prior=False)
    spent = _watched(backbone)
    began = time.perf_counter()
    found = bank(backbone, samples, options, size=(320, 320), stuff=False, store=Store())
    seconds = time.perf_counter() - began
    print(
        f"crops: {len(found.cls)} of {PHOTOS} photos in {seconds:.1f} s, "
        f"{spent() / seconds:.1%} in forwards (at least {SHARE:.0%})"
    )
    return spent() / seconds


def bootstrap() -> float:
    """Seconds of the round, extrapolated."""
    backbone = backbones.load("embedded")
    amp = use_amp("auto", torch.device("cpu"))
    images, _, _ = load_batch([find_images(p)[0] for p in voc_photos()[:BATCH]], (320, 320))
    responses = torch.rand(BATCH, K - 1, 40, 40, generator=torch.Generator().manual_seed(0))
    settings = Bootstrapping(
        epochs=EPOCHS, repeat=1, batch=BATCH, start=1, intervals=(1,), background=True, amp=amp
    )
    head = decoder(mask_transformer_config("transfgu", encoder_dim=192, classes=K), seed=0)
    assert isinstance(head, MaskTransformer)
    trainer = BootstrapTrainer(head, settings, length=1)  # with a teacher from the second step on

    def step() -> None:
        seen = views(images, responses, settings, patch=8, step=trainer.step)
        with torch.autocast("cpu", torch.bfloat16, enabled=amp):
            tokens = backbone.encode(seen.images.round().byte(), want={"tokens"}).tokens
        assert isinstance(tokens, Tensor)
        trainer.learn(tokens.float(), seen)

    seconds = []
    for _ in range(WARM + TIMED):
        began = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - began)
    one = sorted(seconds[WARM:])[TIMED // 2]
    total = one * EPOCHS * IMAGES / BATCH
    words = f"{'bfloat16' if amp else 'float32'}, {1e3 * one / BATCH:.0f} ms an image"
    print(f"round: {total / 60:.1f} min, {words} (at most {MOST_S / 60:.0f})")
    return total


def _watched(backbone: Backbone) -> Callable[[], float]:
    """Add up the seconds that a backbone computes."""
    encode, total = backbone.encode, [0.0]

    def timed(images: Tensor, **want: Any) -> Any:
        began = time.perf_counter()
        found = encode(images, **want)
        total[0] += time.perf_counter() - began
        return found

    backbone.encode = timed  # type: ignore[method-assign]
    return lambda: total[0]


def main() -> None:
    print(f"2048^3 float32 GEMM: {gemm_ms():.0f} ms, {torch.get_num_threads()} threads")
    share, seconds = crops(), bootstrap()
    if share < SHARE or seconds > MOST_S:
        raise SystemExit("Slower than it should be.")


if __name__ == "__main__":
    main()
