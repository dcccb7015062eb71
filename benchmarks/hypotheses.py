"""What photos show, said by their crops: how much of the time is spent in the image tower.

CLIP ViT-B/16 with random weights, four planted photos of 500x375 pixels, crops of a third of each
side (25 of them), as `segment --method reclip++` goes through them, in forwards of 32 crops of
several photos; and how long a new list of words takes once the crops are seen.

    python benchmarks/hypotheses.py
"""

from __future__ import annotations

import time

import torch
import torch.nn.functional as F
from timing import gemm_ms

from zerolabel.backbones.clip import ClipBackbone, random_clip
from zerolabel.data.synthetic import world
from zerolabel.stages.hypotheses import Hypotheses, present
from zerolabel.store import Store

WORDS, PHOTOS, BAR = 59, 4, 0.90
OPTIONS = Hypotheses(window_share=1 / 3)


def texts(seed: int, *, dim: int) -> torch.Tensor:
    drawn = torch.randn(WORDS, dim, generator=torch.Generator().manual_seed(seed))
    return F.normalize(drawn, dim=1)


def main() -> None:
    backbone = random_clip("random-clipb16", device=torch.device("cpu"))
    photos = world(4, images=PHOTOS, size=(375, 500))
    inside: list[float] = []
    tower = ClipBackbone.features

    def timed(*args: object, **kwargs: object) -> object:
        began = time.perf_counter()
        found = tower(*args, **kwargs)  # type: ignore[arg-type]
        inside.append(time.perf_counter() - began)
        return found

    ClipBackbone.features = timed  # type: ignore[method-assign, assignment]
    store = Store()
    queries = texts(0, dim=backbone.projection)
    began = time.perf_counter()
    first = present(backbone, photos, queries, OPTIONS, store=store)
    whole = time.perf_counter() - began
    forwards, spent = len(inside), sum(inside)
    began = time.perf_counter()
    present(backbone, photos, texts(1, dim=backbone.projection), OPTIONS, store=store)
    again = time.perf_counter() - began
    share = spent / whole
    print(f"product of two 2048 x 2048 matrices: {gemm_ms():.0f} ms")
    print(f"{PHOTOS} photos of 500x375, 25 crops each, {forwards} forwards: {whole:.1f} s")
    verdict = "held" if share >= BAR else "MISSED"
    print(f"in the image tower: {share:.1%} (bar {BAR:.0%}: {verdict})")
    more = len(inside) - forwards
    print(f"another list of {WORDS} words: {1000 * again:.1f} ms, {more} forwards")
    assert first.words.any(1).all()


if __name__ == "__main__":
    main()
