"""The preset `dino` is what the paper and its published code state, number by number."""

import dataclasses

from zerolabel.training.config import PRESETS

# Caron et al. 2021, section 3.2 and appendix C; defaults of the published code, 100 epochs
PUBLISHED = {
    "arch": "vit-small",
    "patch": 16,
    "conv_stem": False,
    "objective": "dino",
    "dense": "none",
    "rows": "cls",
    "symmetric": True,
    "global_size": 224,
    "global_low": 0.4,
    "local_size": 96,
    "local_views": 8,
    "local_low": 0.05,
    "hidden": 2048,
    "bottleneck": 256,
    "prototypes": 65536,
    "koleo": 0.0,
    "student_temperature": 0.1,
    "teacher_temperature": (0.04, 0.04),
    "temperature_share": 0.0,
    "batch": 1024,
    "lr": 5e-4,  # at a batch of 256
    "lr_end": 1e-6,
    "warmup": 0.1,  # 10 of 100 epochs
    "decay": (0.04, 0.4),
    "momentum": (0.996, 1.0),
    "clip": 3.0,
    "freeze": 0.01,  # the first of 100 epochs
    "drop_path": 0.1,
}


def test_the_preset_dino_is_as_published():
    found = dataclasses.asdict(PRESETS["dino"])
    assert {name: found[name] for name in PUBLISHED} == PUBLISHED


def test_every_preset_can_be_run():
    for name, config in PRESETS.items():
        assert config.global_size % config.patch == 0, name
        assert config.local_size % config.patch == 0, name
        assert config.dense != "ibot" or config.symmetric, name
