"""A CLIP that sees what is planted, with biases that are known.

Texts lie along the directions of words, patches along those of their colours. Everything else is
the real code: towers, tokenizer, positions, learned prompts.
"""

import zlib
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F

from zerolabel.backbones.clip import ClipBackbone, random_clip
from zerolabel.data.folder import from_arrays
from zerolabel.types import Features

WORDS = ("sky", "grass", "sand", "brick", "snow", "rust")
COLOURS = torch.tensor(
    [[40, 90, 220], [40, 160, 50], [220, 200, 90], [180, 70, 50], [240, 240, 250], [110, 60, 20]]
).float()
COMMON = 0.75  # cosine of the texts of two words, about that of real ones


class PlantedClip(ClipBackbone):
    """Dense = direction of the word + bias of words + bias of places + noise."""

    preferred = 0.0  # how much every patch looks like word 0, whatever it shows
    outer = 0.0  # how much a patch at the border looks like word 1; in the middle not at all
    noise = 0.0
    gap = 0.0  # length of what all images have in common and no text has

    def encode(self, images, *, want):
        side = self.stride
        cells = F.avg_pool2d(images.float(), side).permute(0, 2, 3, 1)  # (B, h, w, 3)
        B, h, w, _ = cells.shape
        nearest = (cells[..., None, :] - COLOURS).square().sum(-1).argmin(-1)  # (B, h, w)
        true = directions(self.projection)[nearest]  # (B, h, w, P)
        found = {}
        if "dense" in want:
            shared = self.gap * apart(self.projection)
            found["dense"] = 10 * (true + shared + self._biases(h, w) + self._noise(cells))
        if "joint" in want:  # of the whole image the middle of what it shows, without a bias
            found["joint"] = 10 * true.mean((1, 2)) + 0.1 * self._noise(cells).mean((1, 2))
        others = set(want) - set(found)
        rest = super().encode(images, want=others) if others else Features()
        return replace(rest, **found)

    def encode_texts(self, texts, *, batch=256):
        words = [next(i for i, word in enumerate(WORDS) if word in text) for text in texts]
        drawn = (torch.Generator().manual_seed(zlib.crc32(text.encode())) for text in texts)
        wobble = torch.stack([torch.randn(self.projection, generator=d) for d in drawn])
        return 7 * (directions(self.projection)[words] + 0.002 * wobble)

    def _biases(self, h, w):
        y, x = ((torch.arange(n) + 0.5) / n * 2 - 1 for n in (h, w))
        far = torch.maximum(y[:, None].abs(), x[None].abs())[..., None]  # 0 in the middle
        towards = owned(self.projection)
        return self.preferred * towards[0] + self.outer * far * towards[1]

    def _noise(self, cells):
        """Noise that is a function of an image's pixels."""
        seeds = (int(256 * image.double().sum()) % (1 << 31) for image in cells)
        drawn = [torch.Generator().manual_seed(seed) for seed in seeds]
        shape = (*cells.shape[1:3], self.projection)
        return self.noise * torch.stack([torch.randn(shape, generator=d) for d in drawn])


def owned(dim):
    """What every word has of its own: orthonormal rows (Q, P)."""
    drawn = torch.Generator().manual_seed(0)
    return torch.linalg.qr(torch.randn(dim, len(WORDS) + 1, generator=drawn))[0].T[: len(WORDS)]


def apart(dim):
    """A direction that no text has, (P,)."""
    drawn = torch.Generator().manual_seed(3)
    rest = torch.randn(dim, generator=drawn)
    texts = torch.linalg.qr(directions(dim).T)[0]
    return F.normalize(rest - texts @ (texts.T @ rest), dim=0)


def directions(dim):
    """Texts of the words: unit rows (Q, P) that share a component."""
    drawn = torch.Generator().manual_seed(0)
    basis = torch.linalg.qr(torch.randn(dim, len(WORDS) + 1, generator=drawn))[0].T
    return COMMON**0.5 * basis[-1] + (1 - COMMON) ** 0.5 * basis[:-1]


def planted_clip(*, preferred=0.0, outer=0.0, noise=0.0, gap=2.5):
    """Build one, with position embeddings that are smooth, as trained ones are."""
    source = random_clip("random-clipt8", device=torch.device("cpu"))
    made = PlantedClip(
        "planted-clip", source.net, source.text, tokenizer=source.tokenizer, device="cpu"
    )
    made.digest = f"planted {preferred} {outer} {noise} {gap}"
    made.preferred, made.outer, made.noise, made.gap = preferred, outer, noise, gap
    grid, dim = made.net.config.grid, made.net.config.dim
    y, x = torch.meshgrid(*[torch.linspace(-1, 1, grid)] * 2, indexing="ij")
    waves = [torch.cos(a * torch.pi * y / 2 + s) * torch.cos(b * torch.pi * x / 2 + t)
             for a in range(4) for b in range(4) for s in (0, 1) for t in (0, 1)]  # fmt: skip
    waves = torch.stack(waves, -1).reshape(grid * grid, -1)  # (g*g, 64)
    drawn = torch.Generator().manual_seed(2)
    mixed = waves @ torch.randn(waves.shape[1], dim, generator=drawn) * waves.shape[1] ** -0.5
    with torch.no_grad():
        made.net.pos_embed[:, 1:] = 0.5 * mixed
    return made


def planted_photos(count, *, size=(64, 96), per_image=2, seed=0, words=WORDS):
    """Photos of coloured areas, and which word is where: samples with labels."""
    samples = []
    for i in range(count):
        rng = np.random.default_rng([seed, i])
        shown = rng.permutation(len(words))[:per_image]
        cells = size[0] // 16, size[1] // 16
        field = rng.random((per_image, *cells))
        for _ in range(2):  # neighbours agree
            pad = np.pad(field, ((0, 0), (1, 1), (1, 1)), mode="edge")
            around = [(y, x) for y in range(3) for x in range(3)]
            field = sum(pad[:, y : y + cells[0], x : x + cells[1]] for y, x in around)
        label = shown[field.argmax(0)].astype(np.uint8).repeat(16, 0).repeat(16, 1)
        image = COLOURS.numpy()[label] + rng.normal(0, 6, (*label.shape, 3))
        image = image.round().clip(0, 255).astype(np.uint8)
        samples.append(from_arrays(f"{i:03d}.png", image, label))
    return samples
