"""A world of colours and a backbone that sees little else: what responds is known beforehand.

Its CLS token is the mean of its patches, weighted by attention, so the slopes are the patches.
"""

import numpy as np
import torch

from zerolabel.data.folder import from_arrays
from zerolabel.types import Features

STUFF, OBJECTS = 2, 2
COLOURS = np.array([[70, 70, 70], [190, 190, 150], [220, 30, 30], [30, 60, 220]], np.uint8)
SIDE, PATCH, DIM = 64, 8, 16


class Coloured:
    """One code per colour; patches of objects draw attention.

    Attributes:
        seen: (images, height, width, what was wanted) of every forward.
    """

    name, stride, dim, learns = "coloured", PATCH, DIM, 0
    device = torch.device("cpu")

    def __init__(self, *, salience=4.0, noise=0.0, gives=("tokens", "cls", "attention", "slopes")):
        self.gives = frozenset(gives)
        self.digest = f"{salience} {noise}"
        self.noise, self.seen = noise, []
        generator = torch.Generator().manual_seed(0)
        self.codes = torch.linalg.qr(torch.randn(DIM, len(COLOURS), generator=generator))[0].T
        self.salience = torch.tensor([0.0] * STUFF + [salience] * OBJECTS)

    def encode(self, images, *, want):
        assert set(want) <= self.gives
        B, _, H, W = images.shape
        h, w = H // PATCH, W // PATCH
        self.seen.append((B, H, W, frozenset(want)))
        cells = images[:, :, : h * PATCH, : w * PATCH].float().unfold(2, PATCH, PATCH)
        means = cells.unfold(3, PATCH, PATCH).mean((4, 5)).permute(0, 2, 3, 1)  # (B, h, w, 3)
        away = (means[..., None, :] - torch.tensor(COLOURS).float()).square().sum(-1)
        shares = (-away / 2000).softmax(-1)  # (B, h, w, colours)
        attention = (shares @ self.salience).flatten(1).softmax(1).reshape(B, h, w)
        tokens = shares @ self.codes
        slopes = tokens.clone()
        for image, own in zip(images, slopes, strict=True):
            generator = torch.Generator().manual_seed(int(image.long().sum()))
            wrong = torch.rand(h, w, generator=generator) < self.noise
            random = torch.randint(STUFF, len(COLOURS), (h, w), generator=generator)
            own[wrong] = self.codes[random[wrong]]
        every = {
            "tokens": tokens,
            "cls": torch.einsum("bhw,bhwd->bd", attention, tokens),
            "attention": attention[:, None].expand(-1, 2, -1, -1),
            "slopes": slopes,
        }
        return Features(**{name: every[name] for name in want})

    def learn(self, batches, *, seed):
        return self

    def state(self):
        return {}

    def restore(self, state):
        return self


def coloured_world(count=8, *, stuff=STUFF, seed=0):
    """Squares of one colour of objects on one of stuff; labels are the numbers of the colours."""
    rng = np.random.default_rng(seed)
    samples = []
    for i in range(count):
        label = np.full((SIDE, SIDE), i % stuff, np.uint8)
        top, left = (PATCH * rng.integers(0, 5, 2)).tolist()
        label[top : top + 32, left : left + 32] = STUFF + i // 2 % OBJECTS
        # a pixel that tells images apart that would be the same
        image = COLOURS[label].copy()
        image[0, 0] = (i, top, left)
        samples.append(from_arrays(f"{i:02d}.png", image, label))
    return samples
