"""What tests of training share: the smallest settings, and a pool of planted images."""

import torch

from zerolabel.data.pool import Pool
from zerolabel.training.config import Pretrain
from zerolabel.training.loop import Trainer

CPU = torch.device("cpu")
SMALL = {
    "arch": "vit-nano",
    "global_size": 32,
    "local_size": 16,
    "local_views": 2,
    "hidden": 32,
    "bottleneck": 16,
    "prototypes": 64,
    "dense_tokens": 6,
    "koleo": 0.0,
    "drop_path": 0.0,
    "batch": 8,
    "lr": 0.03,  # times batch / 256
    "warmup": 0.0,
    "freeze": 0.0,
}


def small(**changes):
    """Settings of a network that does a step in a few hundredths of a second."""
    return Pretrain(**{**SMALL, **changes})


def noise_pool(count=32, side=40, seed=0):
    """Images of coarse noise: every one is different at every place."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 8, 8, generator=generator)
    images = torch.nn.functional.interpolate(coarse, size=(side, side), mode="bilinear")
    return Pool("noise", (images * 255).byte(), f"noise {seed}", {})


def trainer(config, **options):
    return Trainer(config, device=CPU, amp=False, **options)


def run(made, steps, *, pools=None, shares=(1,), look_every=1, **options):
    """Train to the end; what was seen on the way."""
    pools = pools or [noise_pool()]
    return list(made.run(pools, shares=list(shares), steps=steps, look_every=look_every, **options))
