"""A world for probes: grey images with one coloured square each, in the layout of PASCAL VOC."""

import numpy as np
import torch
from PIL import Image

from zerolabel.types import Features

KINDS = {1: (220, 30, 30), 8: (30, 210, 40), 12: (40, 60, 220)}  # aeroplane, cat, dog
GREY = 128


class Colours:
    """A backbone whose tokens are mean colours, each many times over, and whose attention is hue.

    Attributes:
        seen: images encoded so far.
    """

    name, stride, dim, learns, digest = "colours", 8, 24, 0, "0123"
    gives = frozenset({"tokens", "cls", "attention"})

    def __init__(self):
        self.seen = 0

    def encode(self, images, *, want):
        self.seen += len(images)
        mean = torch.nn.functional.avg_pool2d(images.float() / 255, 8).permute(0, 2, 3, 1)
        hue = mean.amax(-1) - mean.amin(-1) + 1e-3
        attention = torch.stack([hue, hue], 1) / hue.sum((1, 2))[:, None, None, None]
        return Features(
            tokens=mean.repeat(1, 1, 1, 8), attention=attention if "attention" in want else None
        )


def scene(seed, size=(48, 48)):
    """An image and its label: a square of 16 or 24 pixels on whole patches, void at the top."""
    generator = np.random.default_rng(seed)
    label = np.zeros(size, np.uint8)
    side = 8 * int(generator.integers(2, 4))
    row, column = (8 * int(generator.integers(1, (n - side) // 8 + 1)) for n in size)
    label[row : row + side, column : column + side] = list(KINDS)[seed % 3]
    image = np.full((*size, 3), GREY)
    for kind, colour in KINDS.items():
        image[label == kind] = colour
    image = image + generator.normal(0, 6, image.shape)
    label[0] = 255
    return np.clip(image, 0, 255).astype(np.uint8), label


def write_voc(root, *, train=12, val=6, size=(48, 48)):
    """Write the data set; returns its root."""
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for split, start, count in (("train", 0, train), ("val", 100, val)):
        names = [f"{split}_{i:02}" for i in range(count)]
        for i, name in enumerate(names):
            image, label = scene(start + i, size)
            Image.fromarray(image).save(root / "JPEGImages" / f"{name}.png")
            Image.fromarray(label).save(root / "SegmentationClass" / f"{name}.png")
        listing = root / "ImageSets" / "Segmentation" / f"{split}.txt"
        listing.write_text("\n".join(names) + "\n")
    return root


def arrays(root, split):
    """Images and labels of a split in the order of jobs."""
    names = (root / "ImageSets" / "Segmentation" / f"{split}.txt").read_text().split()
    return [
        [np.asarray(Image.open(root / folder / f"{name}.png")) for name in names]
        for folder in ("JPEGImages", "SegmentationClass")
    ]


def tokens_of(images):
    """What `Colours` says of images, as jobs keep it: float16 in between."""
    batch = torch.stack([torch.from_numpy(image.copy()).permute(2, 0, 1) for image in images])
    return Colours().encode(batch, want={"tokens"}).tokens.half().float()


def miou(labels, predictions, classes=21, *, zero=False):
    """Mean IoU from sets of pixels; absent classes are left out, or count 0."""
    truth, found = (np.concatenate([x.ravel() for x in part]) for part in (labels, predictions))
    truth, found = truth[truth != 255], found[truth != 255]
    ious = []
    for c in range(classes):
        union = ((truth == c) | (found == c)).sum()
        if union or zero:
            ious.append(((truth == c) & (found == c)).sum() / max(union, 1))
    return np.mean(ious)
