"""What tests of methods share: small backbones, whole runs in memory, and their scores."""

import numpy as np

from zerolabel.backbones.filterbank import Config, FilterBank
from zerolabel.backbones.vit import VitBackbone
from zerolabel.errors import ImageError
from zerolabel.evaluation.confusion import Confusion, scores
from zerolabel.methods import find
from zerolabel.methods.base import BATCH
from zerolabel.methods.configs import configure
from zerolabel.networks.vit import VitConfig, random_vit
from zerolabel.stages.refine import refine
from zerolabel.store import Store
from zerolabel.types import Sample


def small_bank():
    """A filter bank that learns in a tenth of a second."""
    return FilterBank(Config(atoms=8, patches=2000))


def tiny_vit(seed=0):
    """Random weights: its features say little, but it gives keys, CLS tokens and attention."""
    config = VitConfig(patch=8, dim=64, depth=2, heads=2, grid=4)
    return VitBackbone("tiny-test", random_vit(config, seed=seed))


def fitted(method, samples, *, backbone=None, preset="default", store=None, **settings):
    """Configure a method and fit it; returns it and the store."""
    kind = find(method)
    store = store or Store()
    made = kind(configure(kind.PRESETS, preset, settings), backbone or FilterBank())
    made.fit(samples, store=store)
    return made, store


def label_maps(method, samples, store, *, name=None):
    """Refine the evidence for every sample that can be read; id -> label map."""
    maps = {}
    for start in range(0, len(samples), BATCH):
        found, _ = method.evidence(samples[start : start + BATCH], store=store)
        for sample, e in found:
            maps[sample.id] = refine(
                e.scores, sample.load(), name=name or method.config.refine, covered=e.covered
            )
    return maps


def miou(samples, maps, k, **options):
    """Mean IoU after Hungarian matching, over all pixels of all samples."""
    classes = 1 + max(
        int(s.load_label().max(initial=0, where=s.load_label() < 255)) for s in samples
    )
    confusion = Confusion(classes, k)
    for sample in samples:
        confusion.add(sample.load_label(), maps[sample.id])
    return scores(confusion.counts, **options).miou


def broken(name="broken.png", reason="cannot be read: torn"):
    """A sample whose file is damaged."""

    def load():
        raise ImageError(reason)

    return Sample(name, load, lambda: "00")


def half(left, right, size=(32, 48)):
    """An image of two grey halves."""
    image = np.full((*size, 3), left, np.uint8)
    image[:, size[1] // 2 :] = right
    return image
