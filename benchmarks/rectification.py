"""A step of ReCLIP++'s rectification from cached features, against one as it is written.

21 words, a grid of 21 x 28, P = 512, and the text tower of CLIP ViT-B/16 with random weights. The
plain step runs all 77 tokens of every word through the tower, projects the positions before it
multiplies them with the references, concatenates scores and features before the convolution, and
looks at one image and one word after the other. The gradients of the two are compared before they
are timed, turn by turn. Peak memory is that of a fresh process, the tower's weights included.

    python benchmarks/rectification.py
"""

from __future__ import annotations

import subprocess
import sys
from functools import partial

import torch
import torch.nn.functional as F
from timing import best_of, gemm_ms, peak_of_process
from torch import Tensor

from zerolabel.networks.bias import BiasConfig, rectifier
from zerolabel.networks.clip_text import ClipTextConfig, random_clip_text
from zerolabel.ops.rectification import gumbel_mask
from zerolabel.training.rectify import RectifyTrainer, RectifyTraining

WORDS, DIM, WIDTH, SUFFIX = 21, 512, 768, 3
GRID = (21, 28)
BATCHES = (1, 4)
BAR_S, BAR_MB = 0.45, 2000


def draw(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def setting(batch: int) -> tuple[RectifyTrainer, tuple[Tensor, Tensor, Tensor]]:
    """A trainer, and the features, positions and present words of a batch."""
    text = random_clip_text(ClipTextConfig(), DIM, seed=0)
    start = text.embed(torch.tensor(0)).detach()
    config = BiasConfig(dim=DIM, width=WIDTH, words=WORDS, text_dim=DIM)
    trainer = RectifyTrainer(
        rectifier(config, seed=0, start=start),
        text,
        queries=F.normalize(draw(WORDS, DIM, seed=1), dim=1),
        suffix=draw(WORDS, SUFFIX, DIM, seed=2) / 50,
        at=torch.full((WORDS,), SUFFIX - 1),
        sot=text.embed(torch.tensor(1)).detach(),
        config=RectifyTraining(),
        device=torch.device("cpu"),
    )
    present = draw(batch, WORDS, seed=3) > 1
    present[:, 0] = True
    dense = F.normalize(draw(batch, *GRID, DIM, seed=4), dim=3)
    return trainer, (dense, draw(*GRID, WIDTH, seed=5), present)


def ours(trainer: RectifyTrainer, dense: Tensor, positions: Tensor, present: Tensor) -> float:
    return trainer.learn(dense, positions, present=present)


def plain(trainer: RectifyTrainer, dense: Tensor, positions: Tensor, present: Tensor) -> float:
    net, names = trainer.rectifier.train(), trainer.names
    before = torch.cat([names["sot"][None], net.prompt]).expand(WORDS, -1, -1)
    texts = torch.cat([before, names["suffix"]], 1)  # (Q, 77, 512)
    references = trainer.text.from_vectors(texts, names["at"] + before.shape[1])
    references = references / references.norm()
    bias = net.space(positions) @ references.T  # (h, w, Q)
    scores = (dense @ trainer.queries.T - bias).permute(0, 3, 1, 2)
    joined = torch.cat([dense.permute(0, 3, 1, 2), scores], 1)
    rectified = net.decoder.norm(net.decoder.conv(joined))
    mask = gumbel_mask(100 * rectified, generator=torch.Generator().manual_seed(trainer.step))
    losses = []
    for image, held in enumerate(present):
        terms = []
        for k in held.nonzero()[:, 0]:
            z = (mask[image, k][:, :, None] * dense[image]).mean((0, 1))
            terms.append(F.cross_entropy(100 * trainer.queries @ z, k))
        losses.append(torch.stack(terms).mean())
    loss = torch.stack(losses).mean()
    trainer.optimiser.zero_grad(set_to_none=True)
    loss.backward()
    trainer.optimiser.step()
    trainer.step += 1
    return loss.item()


CONTESTANTS = {"here": ours, "plain": plain}


def gradients(name: str, batch: int) -> Tensor:
    """What the first step does to all weights, as one vector."""
    trainer, parts = setting(batch)
    CONTESTANTS[name](trainer, *parts)
    return torch.cat([p.grad.flatten() for p in trainer.rectifier.parameters()])


def report_peak(name: str, batch: int) -> None:
    trainer, parts = setting(batch)
    for _ in range(2):
        CONTESTANTS[name](trainer, *parts)
    print(peak_of_process())


def peak_mb(name: str, batch: int) -> float:
    """Measure one contestant in a process of its own."""
    command = [sys.executable, __file__, name, str(batch)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    missed = []
    # first: children inherit our own peak
    peaks = {(name, batch): peak_mb(name, batch) for name in CONTESTANTS for batch in BATCHES}
    print(f"2048^3 float32 GEMM: {gemm_ms():.0f} ms, {torch.get_num_threads()} threads")
    for batch in BATCHES:
        expected = gradients("plain", batch)
        difference = ((gradients("here", batch) - expected).norm() / expected.norm()).item()
        functions = {n: partial(f, *_flat(batch)) for n, f in CONTESTANTS.items()}
        seconds = best_of(functions, rounds=3)
        print(f"batch of {batch}, gradients differ by {difference:.0e} of their length")
        for name in CONTESTANTS:
            print(f"  {name:6s} {seconds[name]:7.3f} s  {peaks[name, batch]:6.0f} MB")
        print(f"  {seconds['plain'] / seconds['here']:.1f} x faster")
        if seconds["here"] > BAR_S or peaks["here", batch] > BAR_MB:
            missed.append(str(batch))
    if missed:
        raise SystemExit(f"Missed {BAR_S} s or {BAR_MB} MB at a batch of {', '.join(missed)}.")


def _flat(batch: int) -> tuple[RectifyTrainer, Tensor, Tensor, Tensor]:
    trainer, parts = setting(batch)
    return trainer, *parts


if __name__ == "__main__":
    report_peak(sys.argv[1], int(sys.argv[2])) if len(sys.argv) > 1 else main()
