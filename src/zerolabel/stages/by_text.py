"""Regions of any backbone, named by words through a CLIP that stands beside it.

Shapes: `h w` patch grid, `P` channels of the space that images share with texts, `Q` words, `R`
regions of one image, `K` classes.

Source: Li et al., "ACSeg: Adaptive Conceptualization for Unsupervised Semantic Segmentation",
CVPR 2023, its language-assisted segmentation; the dense features are those of Zhou, Loy and Dai,
"Extract Free Dense Labels from CLIP", ECCV 2022.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zerolabel import backbones
from zerolabel.backbones.clip import ClipBackbone
from zerolabel.data.words import Words, parse_words, templates
from zerolabel.errors import UsageError, WeightsError
from zerolabel.stages import dense
from zerolabel.stages.classify import by_text
from zerolabel.stages.dense import Look
from zerolabel.stages.segments import Segments
from zerolabel.stages.words import chosen, foreground, queries
from zerolabel.store import Store
from zerolabel.types import RegionMap, Sample


@dataclass(frozen=True, kw_only=True)
class ByText:
    """Options.

    Attributes:
        classes: the words, see `data.words.parse_words`; empty takes the classes of the data set.
        clip: name of the backbone that reads them.
        clip_weights: its weights file; empty for the one that is cached.
        clip_short: pixels of the short side at which it looks at photos.
        templates: sentences that a word is put into: "all" (85), "imagenet" (80) or "plain" (one).
    """

    classes: str = ""
    clip: str = "clip-vitb16"
    clip_weights: str = ""
    clip_short: int = 336
    templates: str = "all"


def settle(options: ByText, *, background: bool) -> dict[str, Any]:
    """Read all that options name, so that it decides the result, and not where it lay.

    Args:
        options: as they were given.
        background: whether a category is told without words.

    Returns:
        The options that change: the words themselves instead of their file, and a weights file by
        its whole path, because a model needs it again.

    Raises:
        UsageError: words or templates that cannot be.
    """
    templates(options.templates)
    changed = {}
    if options.classes:
        listed(options, (), background=background)
        changed["classes"] = parse_words(options.classes).text
    if options.clip_weights:
        changed["clip_weights"] = str(Path(options.clip_weights).expanduser().absolute())
    return changed


def load(options: ByText, *, device: torch.device | str) -> ClipBackbone:
    """Load the CLIP.

    Args:
        options: which one.
        device: where it computes.

    Returns:
        The CLIP.

    Raises:
        UsageError: an unknown name, or a backbone that reads no words.
        WeightsError: its weights are not here, cannot be read, or are of another network.
    """
    file = options.clip_weights
    if file and not Path(file).is_file():
        raise WeightsError(
            f"{file} is not a file. Expected the weights of the CLIP that names regions; a model "
            "that was fitted with --set clip_weights=FILE needs that file in its place."
        )
    try:
        found = backbones.load(options.clip, weights=file or None, device=str(device))
    except WeightsError as error:  # --weights is for the other backbone
        said = str(error).replace("--weights FILE", "--set clip_weights=FILE")
        raise WeightsError(f"Regions are named by a CLIP, which is missing: {said}") from None
    if not isinstance(found, ClipBackbone):
        raise UsageError(
            f"Expected a backbone with a text tower as clip, found {found.name}. Use "
            f"--set clip={ByText.clip}."
        )
    if options.clip_short < found.stride:
        raise UsageError(
            f"clip_short is {options.clip_short}, but {found.name} needs at least {found.stride} "
            "pixels."
        )
    return found


def listed(options: ByText, known: Sequence[str], *, background: bool) -> Words:
    """List the words: those of the user, or else the classes of the data set.

    Args:
        options: with the user's.
        known: classes of the data set, index = id.
        background: whether regions of it are told without words; a first class of that name is not
            among the words then.

    Returns:
        The words.

    Raises:
        UsageError: there are none, or words of a background that is told without them.
    """
    found = chosen(options.classes, known, purpose="classify=text names regions by words")
    return foreground(found) if background else found


def texts(clip: ClipBackbone, words: Words, options: ByText, *, store: Store) -> dict[str, Tensor]:
    """Embed words: what a model keeps of them.

    Args:
        clip: reads them.
        words: from `listed`.
        options: the templates.
        store: keeps each word.

    Returns:
        texts: float32 (Q, P), unit rows; groups: int64 (Q,), the class of each.
    """
    found = queries(clip, words.words, templates=templates(options.templates), store=store)
    return {"texts": found, "groups": torch.tensor(words.groups)}


def compare(
    clip: ClipBackbone,
    pairs: Sequence[tuple[Sample, Segments]],
    arrays: Mapping[str, Tensor],
    options: ByText,
    *,
    store: Store,
) -> tuple[list[tuple[Sample, Segments]], dict[str, str]]:
    """Compare the described regions of images with the texts of classes.

    Args:
        clip: sees the images, at a size and on a grid of its own.
        pairs: images and their regions.
        arrays: from `texts`.
        options: at which size.
        store: keeps the features of the images.

    Returns:
        The same pairs with `cosines`, and id -> reason for images that cannot be read any more.
    """
    look = Look(short=options.clip_short)
    seen, failures = dense.photos(clip, [sample for sample, _ in pairs], look, store=store)
    features = {one.sample.id: one.dense for one in seen}
    done = []
    for sample, found in pairs:
        if sample.id in features:
            count = len(found.valid)
            ids = found.ids.numpy().astype(np.int32)
            regions = RegionMap(ids, found.valid.numpy(), np.arange(count, dtype=np.int32))
            _, cosines = by_text(
                features[sample.id], regions, arrays["texts"], groups=arrays["groups"]
            )
            done.append((sample, replace(found, cosines=cosines[found.valid])))
    return done, failures
