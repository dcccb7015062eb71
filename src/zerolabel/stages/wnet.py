"""A network that learns from nothing but the images at hand, and what it sees in them.

Shapes: `C` bands, `H W` pixels, `K` channels.

Source: Xia and Kulis, "W-Net: a deep model for fully unsupervised image segmentation", 2017.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from zerolabel.backbones import cache
from zerolabel.networks.unet import UNet, UNetConfig, WNet, random_unet, random_wnet
from zerolabel.stages.parts import arrays_of, train_in_parts, trained
from zerolabel.stages.pictures import Album, Scale
from zerolabel.store import Stage, Store
from zerolabel.training.unet import UnetTrainer, UnetTraining
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
    crop: int,
    flip: bool,
    device: torch.device,
    store: Store,
) -> tuple[dict[str, Tensor], dict[int, float]]:
    """Train a W-Net, or take up what was trained before.

    Args:
        config: of its encoder.
        training: how it learns.
        samples: from what.
        scale: of their values.
        size: (H, W) in pixels to which they are squashed.
        crop: side in pixels of the squares of them that it learns from; 0 for whole images.
        flip: mirror half of them.
        device: where to compute.
        store: keeps the result, and every part what is needed to go on.

    Returns:
        Weights by name; and from step to the normalised cut (or, without one, the loss), averaged
        since the step before it.

    Raises:
        DataError: no image can be read.
    """
    name = cache.key("wnet", samples, config, training, scale, size, crop, flip)

    def work() -> Stage:
        album = Album(
            samples,
            scale,
            size=size,
            batch=training.batch,
            flip=flip,
            seed=training.seed,
            crop=crop,
        )
        trainer = WnetTrainer(random_wnet(config, seed=training.seed), training, device)

        def learn() -> float:
            loss = trainer.learn(album.page(trainer.step))
            return trainer.losses.get("ncut", loss)

        losses = train_in_parts(name, trainer, learn, steps=training.iterations, store=store)
        return Stage(arrays_of(trainer.weights()), {"losses": losses})

    return trained(name, work, steps=training.iterations, store=store)


def train_on_labels(
    config: UNetConfig,
    training: UnetTraining,
    samples: Sequence[Sample],
    scale: Scale,
    *,
    size: tuple[int, int],
    flip: bool,
    device: torch.device,
    store: Store,
) -> tuple[dict[str, Tensor], dict[int, float]]:
    """Train a U-Net on labels, or take up what was trained before; arguments as in `train`."""
    name = cache.key("unet", samples, config, training, scale, size, flip)

    def work() -> Stage:
        album = Album(
            samples, scale, size=size, batch=training.batch, flip=flip, seed=training.seed
        )
        trainer = UnetTrainer(random_unet(config, seed=training.seed), training, device)

        def learn() -> float:
            return trainer.learn(*album.labelled(trainer.step))

        losses = train_in_parts(name, trainer, learn, steps=training.iterations, store=store)
        return Stage(arrays_of(trainer.weights()), {"losses": losses})

    return trained(name, work, steps=training.iterations, store=store)


@torch.no_grad()
def look(net: UNet, image: Tensor, *, tile: int) -> Tensor:
    """Let a U-Net, such as the encoder, see an image, a large one in tiles.

    Args:
        net: in evaluation mode.
        image: normalised, float32 (C, H, W), on the network's device.
        tile: sides above this many pixels are cut; every tile sees `MARGIN` pixels more around it.

    Returns:
        Probabilities, float32 (K, H, W), on the CPU.
    """
    _, H, W = image.shape
    found = torch.empty(net.config.outputs, H, W)
    for top in range(0, H, tile):
        for left in range(0, W, tile):
            bottom, right = min(top + tile, H), min(left + tile, W)
            first, second = max(0, top - MARGIN), max(0, left - MARGIN)
            part = image[None, :, first : bottom + MARGIN, second : right + MARGIN]
            seen = net(part)[0].softmax(0)
            rows = slice(top - first, bottom - first)
            columns = slice(left - second, right - second)
            found[:, top:bottom, left:right] = seen[:, rows, columns].cpu()
    return found


@torch.no_grad()
def reconstruct(net: WNet, image: Tensor) -> Tensor:
    """Show what can be told of an image from its channels alone: (C, H, W), normalised."""
    return net(image[None])[1][0].cpu()  # type: ignore[no-any-return]
