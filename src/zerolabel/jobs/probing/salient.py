"""What is salient in an image, by masks or by attention, and the vector of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from zerolabel.backbones import Backbone, cache
from zerolabel.data.benchmarks import Dataset
from zerolabel.data.folder import file_digest
from zerolabel.data.geometry import GEOMETRIES, through
from zerolabel.data.labels import fit, read_raw
from zerolabel.data.transforms import load_batch
from zerolabel.errors import DataError, UsageError
from zerolabel.evaluation.retrieval import Pooled, occurrences, pool
from zerolabel.jobs.probing import features
from zerolabel.ops.maps import mass_threshold
from zerolabel.store import Stage, Store
from zerolabel.types import Sample

BATCH = 4  # images per forward: of 512 pixels and patches of 8 a ViT-S needs 200 MB each


@dataclass(frozen=True)
class Looking:
    """How an image becomes a mask and a vector.

    Attributes:
        network: gives tokens, and attention where there is no folder of masks.
        size: (H, W) in pixels at which it looks, whole patches.
        saliency: folder of PNGs with the names of the images; None takes the attention.
        mass: share of the attention that is salient, 0..1.
    """

    network: Backbone
    size: tuple[int, int]
    saliency: str | Path | None
    mass: float

    def __post_init__(self) -> None:
        if self.saliency is None and "attention" not in self.network.gives:
            raise UsageError(
                f"{self.network.name} gives no attention, which says what is salient. Give masks "
                "with --saliency, or another --backbone, such as embedded."
            )

    def facts(self) -> dict[str, Any]:
        """What decides on the masks."""
        if self.saliency is None:
            return {"saliency": "attention", "mass": self.mass}
        return {"saliency": str(self.saliency), "mass": None}

    def pooled(self, dataset: Dataset, store: Store) -> Pooled:
        """Look at all images.

        Args:
            dataset: labelled samples.
            store: keeps the vectors.

        Returns:
            What is known of them.

        Raises:
            DataError: an image cannot be read, or a mask is missing or does not fit.
        """
        geometry = replace(GEOMETRIES["maskcontrast-512"], target=self.size)
        samples = through(dataset.samples, geometry)
        vectors, inside, outside = [], [], []
        for _, part in store.track(f"salient parts of {dataset.split}", samples, BATCH):
            done = store.stage(self._name(part), partial(self._look, part))
            vectors.append(torch.from_numpy(done.arrays["vectors"]))
            for i, sample in enumerate(part):
                label = features.read_label(sample)
                if self.saliency:
                    mask = self._mask(sample, label.shape)
                else:
                    mask = fit(done.arrays["masks"][i].view(np.uint8), label.shape) > 0
                pair = occurrences(label, mask, len(dataset.classes))
                inside.append(pair[0])
                outside.append(pair[1])
        return Pooled(torch.cat(vectors), np.stack(inside), np.stack(outside))

    def _name(self, samples: Sequence[Sample]) -> str:
        """Name the stage of a batch by all that its result depends on."""
        masks = [file_digest(self._path(s)) for s in samples] if self.saliency else self.mass
        return cache.key("salient", samples, self.network.digest, self.size, masks)

    def _look(self, samples: Sequence[Sample]) -> Stage:
        """Encode a batch; masks on the patch grid are kept where attention makes them."""
        images, _, failures = load_batch(samples, self.size)
        for name, reason in failures.items():
            raise features.unreadable(name, reason)
        want = {"tokens"} if self.saliency else {"tokens", "attention"}
        found = self.network.encode(images, want=want)
        tokens, attention = found.tokens, found.attention
        if tokens is None or (attention is None and not self.saliency):
            raise UsageError(f"{self.network.name} gave no {' and no '.join(sorted(want))}.")
        if attention is not None:
            masks = list(mass_threshold(attention.mean(1), self.mass).cpu().numpy())
        else:
            masks = [self._mask(sample) for sample in samples]
        vectors = [pool(image.cpu(), mask) for image, mask in zip(tokens, masks, strict=True)]
        arrays = {"vectors": torch.stack(vectors).numpy()}
        return Stage(arrays | ({} if attention is None else {"masks": np.asarray(masks)}))

    def _path(self, sample: Sample) -> Path:
        return Path(self.saliency or "", PurePosixPath(sample.id).with_suffix(".png"))

    def _mask(self, sample: Sample, size: tuple[int, ...] | None = None) -> NDArray[np.bool_]:
        """Read the saliency mask of an image, which must have the size of its label."""
        path = self._path(sample)
        values = read_raw(path)
        if size is not None and values.shape != size:
            raise DataError(
                f"The saliency mask {path} has another size than the label of {sample.id}: "
                f"expected (height, width) {size}, found {values.shape}."
            )
        mask: NDArray[np.bool_] = values > (127 if values.max(initial=0) > 1 else 0)
        return mask
