"""Scores a backbone while it learns, on labels that no loss sees."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from zerolabel.backbones.vit import VitBackbone
from zerolabel.data.packs import Pack
from zerolabel.errors import DataError
from zerolabel.evaluation.probes import knn, mean_patch
from zerolabel.training.loop import Trainer

BANK, QUERIES = 5_000, 1_000  # images of the live k-NN: about a percent of error
KNN_EVERY = 10  # looks
BATCH = 256  # small images per forward


class LiveKnn:
    """Scores the teacher while it learns, on labels that no loss sees.

    Attributes:
        last: the last top-1, 0..1.
    """

    def __init__(self, path: Path, trainer: Trainer) -> None:
        """Decode the images; every sixth is a query."""
        pack = Pack(path)
        if pack.labels is None:
            raise DataError(f"{path} holds no labels. The live k-NN needs a labelled pack.")
        count = min(len(pack), BANK + QUERIES)
        chosen = [i * len(pack) // count for i in range(count)]
        self._images = pack.decode_all(trainer.config.global_size, indices=chosen)
        self._labels = torch.from_numpy(pack.labels[chosen])
        self._query = torch.arange(count) % (1 + BANK // QUERIES) == 0
        self._trainer = trainer
        self._looks = 0
        self.last: float | None = None

    def score(self, *, last: bool) -> dict[str, float]:
        """Score now and then: top-1 of the mean patch token, k = 20."""
        self._looks += 1
        if not last and self._looks % KNN_EVERY:
            return {}
        backbone = VitBackbone(
            "teacher", self._trainer.teacher.backbone, device=self._trainer.device
        )
        parts: list[Tensor] = []
        for some in torch.split(self._images, BATCH):
            tokens = backbone.encode(some, want={"tokens"}).tokens
            if tokens is not None:
                parts.append(mean_patch(tokens.cpu()))
        x, q = torch.cat(parts), self._query
        self.last = knn(x[~q], self._labels[~q], x[q], self._labels[q]).top1
        return {"knn": self.last}
