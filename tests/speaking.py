"""A backbone that reads colours: cells and colour words have known directions in one space."""

import numpy as np
import torch
from PIL import Image

from zerolabel.types import Features

COLOURS = {  # name -> RGB
    "red": (210, 40, 40),
    "green": (40, 190, 60),
    "blue": (40, 60, 210),
    "grey": (128, 128, 128),
}
OTHERS = ("yellow", "pink")  # words without anything to see
PATCH, DIM = 16, 24
SIZE = (64, 96)


class Speaking:
    """Dense features and texts of colours; a text is known by the colour word in it.

    Attributes:
        seen: images of every forward.
        read: all texts.
    """

    name, stride, dim, learns = "speaking", PATCH, DIM, 0
    device = torch.device("cpu")

    def __init__(self, *, gives=("dense", "joint"), digest="speaking"):
        self.gives, self.digest = frozenset(gives), digest
        self.seen, self.read = [], []
        generator = torch.Generator().manual_seed(0)
        known = [*COLOURS, *OTHERS]
        codes = torch.linalg.qr(torch.randn(DIM, len(known) + 1, generator=generator))[0].T
        self.codes, self.other = dict(zip(known, codes, strict=False)), codes[-1]

    def encode(self, images, *, want):
        assert set(want) == {"dense"}
        B, _, H, W = images.shape
        self.seen.append(B)
        cells = images.float().reshape(B, 3, H // PATCH, PATCH, W // PATCH, PATCH).mean((3, 5))
        palette = torch.tensor(list(COLOURS.values())).float()  # (colours, 3)
        away = (cells.permute(0, 2, 3, 1)[..., None, :] - palette).square().sum(-1)
        codes = torch.stack([self.codes[name] for name in COLOURS])
        dense = (-away / 3000).softmax(-1) @ codes  # (B, h, w, DIM)
        return Features(dense=dense * (1 + away.min(-1, keepdim=True).values / 1000))

    def encode_texts(self, texts, *, batch=256):
        self.read += texts
        found = []
        for number, text in enumerate(texts):
            code = next((c for word, c in self.codes.items() if word in text), self.other)
            # the sentence matters a little, and lengths differ
            found.append((1 + number % 3) * (code + 0.1 * len(text) / 20 * self.other))
        return torch.stack(found)


def truth(i):
    """Bars of three colours, their widths and order turning with the image: ids of COLOURS."""
    H, W = SIZE
    order = [(0, 1, 2), (1, 2, 0), (2, 0, 1)][i % 3]
    ends = [0, W // 2 - 4 * (i % 2), W // 2 + 28, W]
    label = np.zeros(SIZE, np.uint8)
    for colour, left, right in zip(order, ends, ends[1:], strict=False):
        label[:, left:right] = colour
    label[: H // 4] = 0  # red covers most
    return label


def photo(i):
    """The photo of `truth`, with a little noise."""
    rng = np.random.default_rng(i)
    colours = np.array(list(COLOURS.values()))[truth(i)]
    return (colours + rng.integers(-12, 13, (*SIZE, 3))).clip(0, 255).astype(np.uint8)


def write_colours(root, images=6):
    """Write photos and masks of three classes as a labelled folder."""
    for name in ("images", "masks"):
        (root / name).mkdir(parents=True)
    for i in range(images):
        Image.fromarray(photo(i)).save(root / "images" / f"{i}.png")
        Image.fromarray(truth(i)).save(root / "masks" / f"{i}.png")
    (root / "classes.txt").write_text("red\ngreen\nblue\n")
    return root
