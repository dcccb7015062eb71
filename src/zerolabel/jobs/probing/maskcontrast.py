"""Train a linear probe as MaskContrast published it: the protocol maskcontrast-linear."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zerolabel import backbones
from zerolabel.backbones import Backbone, cache
from zerolabel.data.benchmarks import Dataset
from zerolabel.data.geometry import GEOMETRIES, through
from zerolabel.data.labels import fit
from zerolabel.errors import ImageError, UsageError
from zerolabel.evaluation.confusion import Confusion
from zerolabel.evaluation.pairs import draw_view, show
from zerolabel.evaluation.probes import ProbeScore, judge
from zerolabel.evaluation.protocols import PROTOCOLS
from zerolabel.evaluation.published_probes import MaskContrastLinear, MaskContrastProbe
from zerolabel.jobs.probing import features
from zerolabel.jobs.run.settings import whole_patches
from zerolabel.methods.configs import configure
from zerolabel.stages import encode
from zerolabel.store import Progress, Stage, Store
from zerolabel.types import Sample

PROTOCOL = PROTOCOLS["maskcontrast-linear"]
PRESETS = {"published": MaskContrastLinear()}
FORWARD = 4  # images per forward: of 512 pixels and patches of 8 a ViT-S needs 200 MB each


def evaluate_maskcontrast(
    data: str | Path,
    *,
    backbone: str = backbones.AUTO,
    weights: str | Path | None = None,
    device: str = "auto",
    split: str | None = None,
    space: str | None = None,
    seeds: int = 1,
    out: str | Path | None = None,
    progress: Progress | None = None,
    **settings: Any,
) -> dict[str, Any]:
    """Train a linear layer on augmented images through a frozen backbone, and score it.

    Args:
        data: root of a labelled data set that has the split "train".
        backbone: one that gives tokens; one that learns learns from the training images.
        weights: its weights file, if not in the cache.
        device: where the backbone runs and the layer is trained.
        split: what is scored, and what the epoch is chosen by; None for "val".
        space: a label space of the data set; None for its default.
        seeds: how many layers are trained, with the seeds 0, 1, ...
        out: folder that takes `evaluation-maskcontrast-linear.json` and, in `cache`, every epoch,
            so that an interrupted call goes on; None keeps nothing.
        progress: called with (work, items done, items in all).
        settings: fields of `MaskContrastLinear` to change; the size is rounded down to whole
            patches.

    Returns:
        The content of the file: protocol, data, backbone, settings, the epoch that each seed's
        score is of, and scores 0..1 with their mean and standard deviation over seeds.

    Raises:
        UsageError: wrong options, or a backbone without tokens.
        DataError: no labelled data set with both splits, or an unreadable image.
        WeightsError: the weights are missing or wrong.
        StoreError: the folder is in use or cannot be written.
    """
    features.check_seeds(seeds)
    config = configure(PRESETS, "published", settings)
    if min(config.epochs, config.batch) < 1:
        raise UsageError("epochs and batch must be 1 or more.")
    train, scored = features.open_splits(Path(data), split, space=space)
    network = features.load(backbone, weights=weights, device=device)
    config = replace(config, size=whole_patches(config.size, network, default=512))
    with features.open_store(out, progress) as store:
        encode.learn(network, train.samples, size=config.size, seed=0, store=store)
        job = _Job(config, network, train, scored, store, backbones.pick_device(device))
        found = [job.run(seed) for seed in range(seeds)]
    epochs, scores = zip(*found, strict=True)
    others = {"settings": asdict(config), "epochs": list(epochs)}
    return features.report(
        train, scored, PROTOCOL, network, size=config.size, found=scores, out=out, **others
    )


@dataclass(frozen=True)
class _Job:
    """Everything that all seeds and epochs share."""

    config: MaskContrastLinear
    network: Backbone
    train: Dataset
    scored: Dataset
    store: Store
    device: torch.device

    def run(self, seed: int) -> tuple[int, ProbeScore]:
        """Train one layer; returns the best epoch, from 0, and its score."""
        probe = MaskContrastProbe(self.config, self.network.dim, self.classes, seed=seed)
        probe.to(self.device)
        samples = (*self.train.samples, *self.scored.samples)
        labels = features.label_hash(samples)
        facts = (self.network.digest, self.config, self.scored.space, labels, seed)
        name = cache.key("maskcontrast-linear", samples, *facts)
        best, kept, chosen = -1.0, probe.state(), 0
        for epoch in range(self.config.epochs):
            done = self.store.stage(f"{name}/{epoch}", partial(self._epoch, probe, seed, epoch))
            state = {key: torch.from_numpy(value) for key, value in done.arrays.items()}
            probe.restore(state)
            if done.info["miou"] > best:  # the first of equals
                best, kept, chosen = done.info["miou"], state, epoch
        probe.restore(kept)
        return chosen, judge(self._score(probe, own_size=True).counts, absent=PROTOCOL.absent)

    @property
    def classes(self) -> int:
        """Number of classes C."""
        return len(self.train.classes)

    def _epoch(self, probe: MaskContrastProbe, seed: int, epoch: int) -> Stage:
        """Go through the training images once, in an order and in views of this epoch's own."""
        probe.begin(epoch)
        generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
        order = torch.randperm(len(self.train.samples), generator=generator).tolist()
        samples = [self.train.samples[i] for i in order]
        losses = []
        for _, part in self.store.track(f"epoch {epoch}", samples, self.config.batch):
            images, labels = self._views(part, generator)
            losses.append(probe.step(self._encode(images), labels))
        counts = self._score(probe, own_size=False).counts
        info = {"loss": sum(losses) / len(losses), "miou": judge(counts, absent="zero").miou}
        return Stage({name: value.cpu().numpy() for name, value in probe.state().items()}, info)

    def _views(self, part: Sequence[Sample], generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw a view of every image: uint8 (B, 3, H, W) and int64 (B, H, W)."""
        config, views = self.config, []
        for sample in part:
            view = draw_view(
                flip=config.flip, angle=config.angle, scale=config.scale, generator=generator
            )
            try:
                image = sample.load()
            except ImageError as error:
                raise features.unreadable(sample.id, str(error)) from None
            views.append(show(image, features.read_label(sample), view, size=config.size))
        images, labels = zip(*views, strict=True)
        return torch.stack(images), torch.stack(labels)

    def _encode(self, images: Tensor) -> Tensor:
        """float32 (B, h, w, D)."""
        found = [
            self.network.encode(part, want={"tokens"}).tokens
            for part in torch.split(images, FORWARD)
        ]
        return torch.cat([tokens for tokens in found if tokens is not None])

    def _score(self, probe: MaskContrastProbe, *, own_size: bool) -> Confusion:
        """Score all images at the size of the protocol, or at their own."""
        config, total = self.config, Confusion(self.classes, self.classes)
        geometry = replace(GEOMETRIES["maskcontrast-512"], target=config.size)
        for part, tokens in features.batches(
            self.network,
            through(self.scored.samples, geometry),
            size=config.size,
            work=f"{self.scored.split} at {'its own size' if own_size else 'one size'}",
            store=self.store,
            batch=FORWARD,
        ):
            for sample, image in zip(part, tokens, strict=True):
                label = features.read_label(sample)
                found = probe.predict(image.to(self.device), config.size).cpu().numpy()
                if own_size:
                    total.add(label, fit(found, label.shape))
                else:
                    total.add(fit(label, config.size), found)
        return total
