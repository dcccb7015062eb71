"""A network that learns from nothing but the images at hand, and what it sees in them.

Shapes: `C` bands, `H W` pixels, `K` channels.

Source: Xia and Kulis, "W-Net: a deep model for fully unsupervised image segmentation", 2017.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from zerolabel.backbones import cache
from zerolabel.networks.unet import UNetConfig, WNet, random_wnet
from zerolabel.stages.parts import arrays_of, forget, train_in_parts
from zerolabel.stages.pictures import Album, Scale
from zerolabel.store import Stage, Store
from zerolabel.training.wnet import WnetTrainer, WnetTraining
from zerolabel.types import Sample

MARGIN = 64  # pixels around a tile that are seen and not kept


def train(
    config: UNetConfig,
    training: WnetTraining,
    samples: Sequence[Sample],
    scale: Scale,
    *,
    size: tuple[int, int],
    flip: bool,
    device: torch.device,
    store: Store,
) -> tuple[dict[str, Tensor], dict[int, float], dict[str, str]]:
    """Train a W-Net, or take up what was trained before.

    Args:
        config: of its encoder.
        training: how it learns.
        samples: from what.
        scale: of their values.
        size: (H, W) in pixels to which they are squashed.
        flip: mirror half of them.
        device: where to compute.
        store: keeps the result, and every part what is needed to go on.

    Returns:
        Weights by name; from step to the normalised cut (or, without one, the loss), averaged since
        the step before it; and id -> reason for images that could not be read.

    Raises:
        DataError: no image can be read.
    """
    name = cache.key("wnet", samples, config, training, scale, size, flip)

    def work() -> Stage:
        album = Album(
            samples, scale, size=size, batch=training.batch, flip=flip, seed=training.seed
        )
        net = random_wnet(config, seed=training.seed)
        trainer = WnetTrainer(net, training, device)

        def learn() -> float:
            loss = trainer.learn(album.page(trainer.step))
            return trainer.losses.get("ncut", loss)

        losses = train_in_parts(name, trainer, learn, steps=training.iterations, store=store)
        info = {"losses": losses, "failures": album.failures}
        return Stage(arrays_of(trainer.weights()), info)

    done = store.stage(name, work)
    forget(name, steps=training.iterations, store=store)
    return (
        {key: torch.from_numpy(value) for key, value in done.arrays.items()},
        {int(step): loss for step, loss in done.info["losses"].items()},
        dict(done.info["failures"]),
    )


@torch.no_grad()
def look(net: WNet, image: Tensor, *, tile: int) -> Tensor:
    """Let the encoder see an image, a large one in tiles.

    Args:
        net: in evaluation mode.
        image: normalised, float32 (C, H, W), on the network's device.
        tile: sides above this many pixels are cut; every tile sees `MARGIN` pixels more around it.

    Returns:
        Probabilities, float32 (K, H, W), on the CPU.
    """
    _, H, W = image.shape
    found = torch.empty(net.encoder.config.outputs, H, W)
    for top in range(0, H, tile):
        for left in range(0, W, tile):
            bottom, right = min(top + tile, H), min(left + tile, W)
            first, second = max(0, top - MARGIN), max(0, left - MARGIN)
            part = image[None, :, first : bottom + MARGIN, second : right + MARGIN]
            seen = net.encoder(part)[0].softmax(0)
            rows = slice(top - first, bottom - first)
            columns = slice(left - second, right - second)
            found[:, top:bottom, left:right] = seen[:, rows, columns].cpu()
    return found


@torch.no_grad()
def reconstruct(net: WNet, image: Tensor) -> Tensor:
    """Show what can be told of an image from its channels alone: (C, H, W), normalised."""
    return net(image[None])[1][0].cpu()  # type: ignore[no-any-return]
