"""What tests of ACSeg share: the smallest settings, a backbone that looks at objects, checks."""

import numpy as np
import torch
from planted import fitted, tiny_vit

from zerolabel.data.folder import from_arrays
from zerolabel.types import Features

SMALL = {
    "k": 3,
    "size": (48, 64),
    "restarts": 2,
    "features": "tokens",
    "concepts": 4,
    "steps": 2,
    "prototypes": "clusters",
    "iterations": 3,
    "batch": 4,
    "lr": 1e-3,
    "amp": "off",
    "merge": 0.95,
    "background": "none",
    "classify": "cluster",
    "describe": "pool",
    "crop_size": 32,
    "refine": "bilinear",
}


def small(samples, *, backbone=None, store=None, **changes):
    """Fit with little work; the method and its store."""
    backbone = backbone or tiny_vit()
    return fitted("acseg", samples, backbone=backbone, store=store, **SMALL | changes)


def check(made, samples, store):
    """Numbers everywhere, and a category for every patch; returns the evidence and failures."""
    limit = made.arrays.get("threshold", torch.zeros(()))
    assert limit.isfinite() or limit == -torch.inf  # where all regions are foreground
    assert all(v.isfinite().all() for name, v in made.arrays.items() if name != "threshold")
    assert np.isfinite(list(made.losses.values())).all()
    found, failures = made.evidence(samples, store=store)
    for _, e in found:
        assert e.scores.shape == (made.k, *e.parts.shape)
        assert e.scores.isfinite().all()
        assert e.typical.isfinite().all()
        present = set(e.scores.argmax(0).unique().tolist())
        assert {k for k in range(made.k) if e.typical[k] > -1} == present
        assert (e.scores.amax((1, 2)) > -1).nonzero()[:, 0].tolist() == sorted(present)
    return found, failures


GROUND, COLOURS = (20, 140, 20), {1: (220, 40, 40), 2: (40, 60, 230)}


class Watcher:
    """Tokens and CLS are mean colours; attention is where it is not green."""

    gives, stride, dim, learns = frozenset({"tokens", "cls", "attention", "received"}), 8, 3, 0
    name = digest = "watcher"
    device = torch.device("cpu")

    def encode(self, images, *, want):
        tokens = torch.nn.functional.avg_pool2d(images.float() / 255 - 0.3, 8).permute(0, 2, 3, 1)
        seen = 0.01 + (tokens[..., 1] < 0).float()  # (B, h, w)
        found = {"tokens": tokens, "cls": tokens.mean((1, 2))}
        found |= {"attention": torch.stack([seen, 0.5 * seen], 1), "received": seen}
        return Features(**{name: found[name] for name in want})


def scenes(count=8):
    """A red and a blue object, or one of them, on green; their labels are 1, 2 and 0."""
    made, rng = [], np.random.default_rng(0)
    for i in range(count):
        image, label = np.full((48, 64, 3), GROUND, np.uint8), np.zeros((48, 64), np.uint8)
        for kind, left in ((1, 8), (2, 32)):
            if i % 3 != kind:
                top = 8 * rng.integers(1, 4)
                image[top : top + 16, left : left + 16] = COLOURS[kind]
                label[top : top + 16, left : left + 16] = kind
        noise = rng.integers(-9, 10, image.shape)
        made.append(from_arrays(f"{i}.png", (image + noise).astype(np.uint8), label))
    return made
