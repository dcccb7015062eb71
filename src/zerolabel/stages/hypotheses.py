"""Which words a photo shows, said by crops of it or by the whole of it.

What rectification learns from, as nobody tells it. What is seen does not depend on the words: a new
list of them costs one product.
Shapes: `n` crops, `P` channels of the space shared with texts, `Q` words.

Source: Wang and Kang, "ReCLIP++: Learn to rectify the bias of CLIP for unsupervised semantic
segmentation", 2024, section III-D; the whole photo as in ReCLIP, CVPR 2024.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from zerolabel.backbones import cache
from zerolabel.backbones.clip import ClipBackbone
from zerolabel.data.transforms import squash, to_tensor
from zerolabel.errors import DataError, ImageError, UsageError, unknown_name
from zerolabel.ops import hypotheses as rules
from zerolabel.ops.resize import resize
from zerolabel.stages.crops import rebatched
from zerolabel.store import Stage, Store
from zerolabel.types import Image, Sample

BATCH = 16  # photos of a stage
HYPOTHESES = ("crops", "whole")


@dataclass(frozen=True, kw_only=True)
class Hypotheses:
    """Options of the step.

    Attributes:
        hypothesis: "crops", or "whole" (ReCLIP's first version, without crops).
        windows: "paper" (shares of the photo) or "code" (squares in pixels).
        window_share: height and width of a crop as shares of the photo's ("paper").
        window_side: side of a crop in pixels ("code").
        crop_size: side in pixels to which a crop, or the photo, is brought.
        crop_batch: crops per forward, those of several photos together.
        least: a word is there if a larger share of the crops is nearest to it, 0..1; or, said by
            the whole photo, if 100 times their cosine is this or more.
        most: words that are taken where none is there by this rule.
    """

    hypothesis: str = "crops"
    windows: str = "paper"
    window_share: float = 1 / 6
    window_side: int = 56
    crop_size: int = 224
    crop_batch: int = 32
    least: float = 0.07
    most: int = 2


@dataclass(frozen=True)
class Present:
    """What photos show.

    Attributes:
        samples: the photos that could be read.
        words: bool (photos, Q), at least one in each.
        failures: id -> reason for the other photos.
    """

    samples: list[Sample]
    words: Tensor
    failures: dict[str, str]


def check(options: Hypotheses) -> None:
    """Refuse options that cannot be, before any work is done.

    Raises:
        UsageError: the first one that is found.
    """
    if options.hypothesis not in HYPOTHESES:
        raise unknown_name("hypothesis", options.hypothesis, HYPOTHESES)
    if min(options.crop_batch, options.crop_size, options.most) < 1:
        found = f"{options.crop_batch}, {options.crop_size} and {options.most}"
        raise UsageError(f"crop_batch, crop_size and most must be positive, got {found}.")
    _windows((64, 64), options)


def present(
    backbone: ClipBackbone,
    samples: Sequence[Sample],
    queries: Tensor,
    options: Hypotheses,
    *,
    store: Store,
) -> Present:
    """Say for every photo which words it shows.

    Args:
        backbone: gives the joint feature.
        samples: the photos.
        queries: texts of the words, float32 (Q, P), unit rows.
        options: by which rule.
        store: keeps the features of crops as float16.

    Returns:
        The words of each photo.

    Raises:
        DataError: no photo could be read.
    """
    kept: list[Sample] = []
    words: list[Tensor] = []
    failures: dict[str, str] = {}
    for _, batch in store.track("hypotheses", samples, BATCH):
        crops, readable, unread = joint(backbone, batch, options, store=store)
        words += [_decide(features, queries, options) for features in crops]
        kept += readable
        failures |= unread
    if not kept:
        raise DataError("None of the images could be read; failures.json lists the reasons.")
    return Present(kept, torch.stack(words), failures)


def joint(
    backbone: ClipBackbone, batch: Sequence[Sample], options: Hypotheses, *, store: Store
) -> tuple[list[Tensor], list[Sample], dict[str, str]]:
    """Encode the crops of photos, or read what was encoded before.

    Args:
        backbone: gives the joint feature.
        batch: the photos.
        options: which crops.
        store: keeps the features as float16.

    Returns:
        Unit vectors float32 (n, P) for every photo that could be read, these photos, and
        id -> reason for the others.
    """
    rule = [getattr(options, name.name) for name in fields(options) if name.name not in LATER]

    def work() -> Stage:
        counts, failures = np.zeros(len(batch), np.int64), {}

        def cut() -> Iterator[Tensor]:
            for i, sample in enumerate(batch):
                try:
                    crops = _cut(sample.load(), options)
                except ImageError as error:
                    failures[sample.id] = str(error)
                    continue
                counts[i] = len(crops)
                yield crops

        found = [_encode(backbone, crops) for crops in rebatched(cut(), options.crop_batch)]
        features = torch.cat(found) if found else torch.empty(0, backbone.projection).half()
        return Stage({"joint": features.numpy(), "counts": counts}, failures)

    done = store.stage(cache.key("crops-joint", batch, backbone.digest, rule), work)
    counts = done.arrays["counts"].tolist()
    features = torch.from_numpy(done.arrays["joint"]).float()
    parts = [part for part in torch.split(features, counts) if len(part)]
    return parts, [s for s, n in zip(batch, counts, strict=True) if n], done.info


LATER = ("crop_batch", "least", "most")  # what the features do not depend on


def _decide(features: Tensor, queries: Tensor, options: Hypotheses) -> Tensor:
    """Which words crops (n, P) show: bool (Q,)."""
    if options.hypothesis == "whole":
        return rules.from_whole(features[0], queries, least=options.least, most=options.most)
    shares = rules.shares(features, queries)
    return rules.from_shares(shares, least=options.least, most=options.most)


def _windows(shape: tuple[int, int], options: Hypotheses) -> Tensor:
    share, side = options.window_share, options.window_side
    return rules.windows(shape, share=share, rule=options.windows, side=side)


def _cut(image: Image, options: Hypotheses) -> Tensor:
    """Cut the crops out of a photo, as they are encoded: uint8 (n, 3, side, side)."""
    side = options.crop_size
    if options.hypothesis == "whole":
        return squash(image, (side, side))[None]
    boxes = _windows((image.shape[0], image.shape[1]), options)
    photo = to_tensor(image)
    crops = [
        resize(photo[None, :, top:bottom, left:right], (side, side))
        for top, left, bottom, right in boxes.tolist()
    ]
    return torch.cat(crops)


def _encode(backbone: ClipBackbone, crops: Tensor) -> Tensor:
    found = backbone.encode(crops, want={"joint"}).joint
    assert found is not None  # it was asked for
    return F.normalize(found, dim=-1).half().cpu()
