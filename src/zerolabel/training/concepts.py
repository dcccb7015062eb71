"""How the concept generator of ACSeg learns: modularity of cached patch features, no images.

Shapes: `B` images, `N` patches, `D` channels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from zerolabel.networks.concepts import ConceptGenerator
from zerolabel.ops.modularity import modularity_loss
from zerolabel.store import below
from zerolabel.training import optimiser

WINDOW = 64  # shards read at once: 1,024 images, 154 MB of 196 patches with 384 channels


@dataclass(frozen=True)
class ConceptTraining:
    """Settings; the number of steps is the paper's, the rest is not published.

    Attributes:
        steps: length of the training.
        batch: images per step.
        lr, decay: of AdamW; the learning rate is constant.
        self_loops: whether a patch has an edge to itself.
        prototypes: how they start: "clusters" of patches of the data set, or "random" directions.
        amp: let the generator compute in bfloat16.
        seed: fixes the order of the images.
    """

    steps: int = 2500
    batch: int = 64
    lr: float = 1e-4
    decay: float = 0.01
    self_loops: bool = True
    prototypes: str = "clusters"
    amp: bool = False
    seed: int = 0


class ConceptTrainer:
    """A generator and its optimiser.

    Attributes:
        generator: trained in place.
        config: the settings.
        step: steps done.
    """

    def __init__(self, generator: ConceptGenerator, config: ConceptTraining) -> None:
        self.generator, self.config, self.step = generator, config, 0
        self.optimiser = torch.optim.AdamW(
            generator.parameters(), lr=config.lr, weight_decay=config.decay, fused=True
        )

    def learn(self, patches: Tensor) -> float:
        """Do one step.

        Args:
            patches: float (B, N, D), of any length.

        Returns:
            The mean loss of the batch, before the step.
        """
        device = self.generator.prototypes.device
        x = F.normalize(patches.to(device).float(), dim=2)
        with torch.autocast(device.type, torch.bfloat16, enabled=self.config.amp):
            concepts = self.generator(x)
        shares = x @ F.normalize(concepts.float(), dim=2).transpose(1, 2)  # (B, N, K)
        loss = modularity_loss(x, shares, self_loops=self.config.self_loops).mean()
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimiser.step()
        self.step += 1
        return loss.item()

    def state(self) -> dict[str, Tensor]:
        """Everything that `restore` needs, as tensors of a flat dict."""
        kept = {f"weights/{k}": v for k, v in self.generator.state_dict().items()}
        kept |= {f"optimiser/{k}": v for k, v in optimiser.state_of(self.optimiser).items()}
        return {**kept, "step": torch.tensor(self.step)}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on where another trainer of the same settings stopped."""
        self.generator.load_state_dict(below(state, "weights/"))
        optimiser.restore(self.optimiser, below(state, "optimiser/"))
        self.step = int(state["step"])


def batches(
    read: Callable[[int], Tensor],
    sizes: Sequence[int],
    *,
    batch: int,
    seed: int,
    first: int = 0,
    window: int = WINDOW,
) -> Iterator[Tensor]:
    """Draw batches for ever, if there are images, in an order of the seed and the step alone.

    Every epoch shuffles the shards, and within a window of shards all images; at most a window is
    in memory. What does not fill a batch is left out until the next epoch shuffles again; a window
    with fewer images than a batch is one smaller batch.

    Args:
        read: returns a shard, float (images, N, D).
        sizes: images of every shard; those with none are never read.
        batch: images per batch.
        seed: fixes the order.
        first: steps to skip; nothing is read for them.
        window: shards that are mixed.

    Yields:
        (B, N, D), of the type that `read` returns.
    """
    shards = [i for i, size in enumerate(sizes) if size]
    step, epoch, held, patches = 0, 0, (), torch.empty(0)
    while shards:
        generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
        order = [shards[i] for i in torch.randperm(len(shards), generator=generator).tolist()]
        for start in range(0, len(order), window):
            part = tuple(sorted(order[start : start + window]))
            images = torch.randperm(sum(sizes[i] for i in part), generator=generator)
            full = max(len(images) // batch, 1) * batch
            for rows in torch.split(images[:full], batch):
                if step >= first:
                    if part != held:
                        patches = torch.empty(0)  # let the window before go first
                        held, patches = part, torch.cat([read(i) for i in part])
                    yield patches[rows]
                step += 1
        epoch += 1
