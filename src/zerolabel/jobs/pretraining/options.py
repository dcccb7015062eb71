"""How to pre-train: what the user asked for, checked before any work is done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from zerolabel.backbones.registry import BACKBONES
from zerolabel.backbones.vit import load_vit
from zerolabel.errors import UsageError, unknown_name
from zerolabel.methods.configs import configure
from zerolabel.networks.vit import ARCHITECTURES, ViT
from zerolabel.training import distributed
from zerolabel.training.config import PRESETS, Pretrain
from zerolabel.training.dense import DENSE
from zerolabel.training.dino import OBJECTIVES

ROWS = ("cls", "mean", "both")
AMP = ("auto", "on", "off")


@dataclass(frozen=True, kw_only=True)
class Options:
    """How to pre-train.

    Attributes:
        preset: a name in `PRESETS`, or "auto": "default" on a GPU, "cpu" without one.
        settings: fields of `Pretrain` to change.
        steps: length of the run in steps; give one of steps, epochs and minutes.
        epochs: the same in passes over all squares.
        minutes: the same in time.
        shares: how many of their sum of steps draw from each source; by default all the same.
        side: side of the squares that are kept in memory, in pixels.
        init: a backbone's name or a weights file to go on from.
        knn: a labelled pack for the live k-NN; its labels never reach a loss.
        device: as elsewhere.
        amp: bfloat16 where it is safe: "auto", "on" or "off".
        save_every: seconds between two checkpoints.
        keep_every: seconds between two copies of the teacher that are kept; 0 keeps none.
    """

    preset: str = "auto"
    settings: Mapping[str, Any] = field(default_factory=dict)
    steps: int = 0
    epochs: float = 0.0
    minutes: float = 0.0
    shares: Sequence[int] = ()
    side: int = 96
    init: str | None = None
    knn: Path | None = None
    device: str = "auto"
    amp: str = "auto"
    save_every: float = 120.0
    keep_every: float = 600.0


def settle(options: Options, device: torch.device) -> tuple[Pretrain, ViT | None]:
    """Work out the settings and the network to start from.

    Args:
        options: what the user asked for.
        device: decides the automatic preset.

    Returns:
        The settings, and the network of `init` or None.

    Raises:
        UsageError: an unknown name, a bad value, or not exactly one length.
    """
    preset = options.preset
    if preset == "auto":
        preset = "cpu" if device.type == "cpu" else "default"
    config = configure(PRESETS, preset, options.settings)
    if options.amp not in AMP:
        raise unknown_name("amp", options.amp, AMP)
    if sum(bool(x) for x in (options.steps, options.epochs, options.minutes)) != 1:
        raise UsageError("Give the length of the run: one of --steps, --epochs and --minutes.")
    _check(config)
    if options.init is None:
        return config, None
    return _start_from(options.init, config, set(options.settings))


def _check(config: Pretrain) -> None:
    """Refuse settings that no run can have."""
    names = {"objective": OBJECTIVES, "dense": DENSE, "rows": ROWS, "arch": tuple(ARCHITECTURES)}
    for name, known in names.items():
        if getattr(config, name) not in known:
            raise unknown_name(name, getattr(config, name), known)
    if config.dense == "ibot" and not config.symmetric:
        raise UsageError("dense=ibot compares a view with itself: it needs symmetric=true.")
    if config.batch % distributed.world() or config.batch < 2:
        raise UsageError(
            f"The batch of {config.batch} images must be at least 2 and a multiple of the "
            f"{distributed.world()} processes."
        )
    for name in ("global_size", "local_size"):
        if getattr(config, name) % config.patch:
            raise UsageError(f"{name} must be a multiple of the patch, {config.patch} pixels.")


def _start_from(init: str, config: Pretrain, asked: set[str]) -> tuple[Pretrain, ViT]:
    """Load the network to go on from; it decides the architecture."""
    known = init in BACKBONES
    loaded = load_vit(
        init if known else Path(init).stem,
        weights=None if known else init,
        device=torch.device("cpu"),
    )
    net = loaded.net.config
    sizes = {(a.dim, a.depth): name for name, a in ARCHITECTURES.items()}
    found: dict[str, Any] = {
        "arch": sizes.get((net.dim, net.depth), "custom"),
        "patch": net.patch,
        "conv_stem": net.conv_stem,
    }
    for name in asked & set(found):
        if getattr(config, name) != found[name]:
            raise UsageError(
                f"{init} has {name} {found[name]}, but {getattr(config, name)} was asked for. "
                f"Leave --{name.replace('_', '-')} out, or start from other weights."
            )
    return replace(config, **found), loaded.net
