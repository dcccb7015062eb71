import copy
import math

import pytest
import torch
import torch.nn.functional as F
from small_training import run, small, trainer

from zerolabel.backbones.vit import VitBackbone
from zerolabel.data.pool import Pool
from zerolabel.evaluation.probes import knn, mean_patch

SIDE = 40


def textures(count, seed):
    """Grey images of four patterns, whose brightness and lighting say nothing of the pattern."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(low, high, *shape):
        return torch.rand(count, *shape, generator=generator) * (high - low) + low

    label = torch.arange(count) % 4
    at = torch.arange(SIDE).float()
    wave = 2 * math.pi / uniform(5, 7, 1, 1)
    rows = torch.sin(wave * at[:, None] + uniform(0, 7, 1, 1)).expand(-1, -1, SIDE)
    columns = torch.sin(wave * at + uniform(0, 7, 1, 1)).expand(-1, SIDE, -1)
    blobs = F.interpolate(
        torch.randn(count, 1, 14, 14, generator=generator), size=SIDE, mode="bicubic"
    )[:, 0]
    kinds = torch.stack([rows, columns, 1.4 * rows * columns, blobs])  # (4, N, S, S)
    light = uniform(-0.35, 0.35, 1, 1) * at[:, None] + uniform(-0.35, 0.35, 1, 1) * at
    grey = uniform(0.1, 0.7, 1, 1) + light / SIDE + 0.13 * kinds[label, torch.arange(count)]
    images = (grey.clamp(0, 1) * 255).byte()
    return images[:, None].expand(-1, 3, -1, -1).contiguous(), label


def score(net, bank, queries):
    """Top-1 of ten neighbours; chance is 0.25."""
    backbone = VitBackbone("test", copy.deepcopy(net))
    rows = [
        mean_patch(backbone.encode(x[..., 4:36, 4:36].contiguous(), want={"tokens"}).tokens)
        for x, _ in (bank, queries)
    ]
    return knn(rows[0], bank[1], rows[1], queries[1], k=10).top1


@pytest.mark.slow
def test_a_network_learns_textures_without_labels():
    bank, queries = textures(256, 20), textures(128, 21)
    config = small(
        objective="coding-rate",
        rows="mean",
        symmetric=False,
        local_views=0,
        batch=32,
        lr=0.008,
        hidden=64,
        bottleneck=32,
        momentum=(0.9, 0.99),
        seed=2,
    )
    made = trainer(config)
    before = score(made.teacher.backbone, bank, queries)
    pool = Pool("textures", bank[0], "planted", {})
    seen = [look.values for look in run(made, 40, pools=[pool], look_every=10) if look.values]
    after = score(made.teacher.backbone, bank, queries)
    assert before < 0.7
    assert after > before + 0.1
    assert seen[-1]["image"] < seen[0]["image"] - 0.2
    assert seen[-1]["image_cosine"] < 0.95
