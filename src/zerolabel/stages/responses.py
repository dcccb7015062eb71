"""Part of the verb discover: how strongly every patch of an image responds to every category.

Gradients come from `Features.slopes`, one product for any set of centres. What is kept is small:
attention, which all categories share, beside the gains of the patches that passed the gate, and a
bit for every veto.
Shapes: `B` images, `K` categories, `h w` patch grid, `D` channels.

Source: Yin et al., "TransFGU", ECCV 2022, equations 5 to 7.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from zerolabel.backbones import Backbone, cache
from zerolabel.errors import unknown_name
from zerolabel.ops.crops import foreground
from zerolabel.ops.gradcam import cls_gradients, gains
from zerolabel.ops.packing import Packed, bits_to_mask, pack, unpack
from zerolabel.stages import encode
from zerolabel.stages.encode import Loaded
from zerolabel.store import Arrays, Stage, Store
from zerolabel.types import Sample

WANTS = frozenset({"cls", "attention", "slopes"})
ATTENTIONS = ("relative", "plain", "none")


@dataclass(frozen=True, kw_only=True)
class Responding:
    """Options of the step.

    Attributes:
        loss: "cosine" or "dot", see `ops.gradcam.cls_gradients`.
        mass: share of a category's gains in an image that is kept, 0..1.
        veto: whether a patch that speaks against a category does not respond to it.
        attention: what gains are added to: "relative" (over the image's maximum, as the authors
            compute it), "plain" (as equation 7 has it) or "none".
        grad_scale: what gradients are multiplied by; see `ops.gradcam.gains`.
    """

    loss: str = "cosine"
    mass: float = 0.8
    veto: bool = True
    attention: str = "relative"
    grad_scale: float = 1.0


@dataclass(frozen=True)
class Responses:
    """Of a batch of images.

    Attributes:
        maps: float32 (B, K, h, w), 0 or more.
        foreground: bool (B, h, w), patches with more attention than the mean of their image.
        samples: the B images that could be read.
        failures: id -> reason for the others.
    """

    maps: Tensor
    foreground: Tensor
    samples: list[Sample]
    failures: dict[str, str]


def respond(
    backbone: Backbone,
    batch: Sequence[Sample] | Loaded,
    centres: Tensor,
    options: Responding,
    *,
    size: tuple[int, int],
    store: Store,
) -> Responses:
    """Find the responses of a batch of images, or read what was found before.

    Args:
        backbone: gives CLS, attention and slopes.
        batch: samples, or their images at `size`.
        centres: of the categories, float32 (K, D).
        options: how gradients become responses.
        size: (H, W) in pixels.
        store: keeps the responses; the slopes, too, if several runs share it, so that other
            centres cost one product.

    Returns:
        The responses on the CPU.

    Raises:
        UsageError: options that cannot be, or a backbone without CLS.
    """
    check(options)
    samples = batch.samples if isinstance(batch, Loaded) else batch

    def work() -> Stage:
        slopes_to = store if store.shared is not None else Store()
        seen, kept, failures = encode.features(
            backbone, batch, want=WANTS, size=size, store=slopes_to
        )
        ids = {sample.id for sample in kept}
        ok = np.array([sample.id in ids for sample in samples])
        if not kept:
            return Stage({"ok": ok}, failures)
        assert seen.cls is not None  # all three were asked for
        assert seen.attention is not None
        assert seen.slopes is not None
        upstream = cls_gradients(seen.cls, centres, loss=options.loss)  # (B, K, D)
        grid = seen.slopes.shape[1:3]
        gradients = upstream @ seen.slopes.flatten(1, 2).transpose(1, 2)  # (B, K, h*w)
        gradients = gradients.reshape(*upstream.shape[:2], *grid)
        gained = pack(gains(gradients, mass=options.mass, scale=options.grad_scale))
        arrays: Arrays = {
            "bits": gained.bits,
            "values": gained.values,
            "scales": gained.scales,
            "vetoes": np.packbits((gradients > 0).flatten(1).numpy(), axis=1),
            "attention": seen.attention.mean(1).half().numpy(),
            "ok": ok,
        }
        return Stage(arrays, failures)

    said = [getattr(options, field.name) for field in fields(Responding)]
    facts = (backbone.digest, size, said, centres.numpy().tobytes())
    done = store.stage(cache.key("responses", samples, *facts), work)
    kept = [sample for sample, ok in zip(samples, done.arrays["ok"], strict=True) if ok]
    if not kept:
        return Responses(torch.empty(0, 0, 1, 1), torch.empty(0, 1, 1), kept, done.info)
    attention = torch.from_numpy(done.arrays["attention"]).float()
    maps = _unpacked(done.arrays, attention, len(centres), options)
    return Responses(maps, foreground(attention), kept, done.info)


def check(options: Responding) -> None:
    """Refuse options that cannot be, before any work is done.

    Raises:
        UsageError: the first one that is found.
    """
    if options.attention not in ATTENTIONS:
        raise unknown_name("choice of attention", options.attention, ATTENTIONS)
    nothing = torch.zeros(1, 1, 1, 1)
    cls_gradients(nothing[0, 0], nothing[0, 0], loss=options.loss)
    gains(nothing, mass=options.mass, scale=options.grad_scale)


def _unpacked(kept: Arrays, attention: Tensor, K: int, options: Responding) -> Tensor:
    """Add gains to attention (B, h, w) and apply the vetoes: (B, K, h, w), equation 7."""
    shape = (K, *attention.shape[1:])
    maps = unpack(Packed(kept["bits"], kept["values"], kept["scales"], shape))
    if options.attention == "relative":
        attention = attention / attention.amax((1, 2), keepdim=True).clamp_min(1e-12)
    if options.attention != "none":
        maps += attention[:, None]
    if options.veto:
        vetoes = torch.from_numpy(bits_to_mask(kept["vetoes"], int(np.prod(shape))))
        maps.flatten(1)[vetoes] = 0
    return maps
