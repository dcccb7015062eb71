"""Part of the verb refine: what a network says of a photo of any size, in sliding windows.

The scores of windows stay on the patch grid; pixels are decided a strip at a time, whatever the
number of classes. Shapes: `n` windows, `K` classes, `h' w'` patch grid of a window, `H W` pixels.

Source: Strudel et al., "Segmenter", ICCV 2021, and its code: logits are averaged over windows and
brought to the size of the photo, probabilities over scales and mirror images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from zerolabel.errors import UsageError
from zerolabel.networks.mask_transformer import MaskTransformer
from zerolabel.networks.vit import ViT
from zerolabel.ops.resize import resize
from zerolabel.ops.windows import ELEMENTS, Windows, merged_argmax, merged_strips, sliding
from zerolabel.training.supervised import padded

LONGEST = 8  # the long side over the short one; longer photos are squeezed


@dataclass(frozen=True, kw_only=True)
class Slide:
    """How a photo is looked at.

    Attributes:
        short: pixels that the short side is brought to.
        squash: both sides are, whatever the shape.
        window: side of a window in pixels; a photo whose short side is shorter is enlarged to it.
        stride: from window to window in pixels, 1..window.
        batch: windows per forward.
        scales: factors on `short`.
        flip: look at the mirror image, too.
    """

    short: int
    squash: bool = False
    window: int
    stride: int
    batch: int = 4
    scales: tuple[float, ...] = (1.0,)
    flip: bool = False

    def __post_init__(self) -> None:
        if min(self.short, self.window, self.batch) < 1 or not 1 <= self.stride <= self.window:
            found = f"short {self.short}, window {self.window}, stride {self.stride}"
            raise UsageError(
                f"Expected sides of 1 pixel or more and a stride of 1..window; found {found} and "
                f"{self.batch} windows at once."
            )
        if not self.scales or min(self.scales) <= 0:
            raise UsageError(f"Expected scales above 0, such as 0.75,1,1.25; found {self.scales}.")


@dataclass(frozen=True)
class Said:
    """What a network says of a photo at one scale.

    Attributes:
        scores: float32 (n, K, h', w'), logits of the windows.
        windows: where they lie in the photo of that scale.
        cover: pixels that the patch grid of a window covers.
        flipped: whether it is the mirror image.
    """

    scores: Tensor
    windows: Windows
    cover: tuple[int, int]
    flipped: bool


def scaled(size: tuple[int, int], options: Slide, *, scale: float = 1.0) -> tuple[int, int]:
    """Find the size that a photo is brought to.

    Args:
        size: (H, W) of the photo.
        options: how it is looked at.
        scale: one of its scales.

    Returns:
        (H, W): the short side is `short` times the scale, or the window if that is more.
    """
    short = max(int(options.short * scale), 1 if options.squash else options.window)
    if options.squash:
        return short, short
    H, W = (max(short, int(side * short / min(size))) for side in size)
    return min(H, LONGEST * short), min(W, LONGEST * short)


@torch.no_grad()
def look(
    encoder: ViT,
    decoder: nn.Module,
    image: Tensor,
    options: Slide,
    *,
    prepare: Callable[[Tensor], Tensor],
) -> list[Said]:
    """Score the windows of a photo at every scale, and of its mirror image.

    Args:
        encoder: in evaluation mode.
        decoder: likewise; tokens (B, h, w, D) to logits (B, K, h, w).
        image: uint8 (3, H, W).
        options: how to look.
        prepare: brings uint8 images (B, 3, H, W) to the device, as the encoder takes them.

    Returns:
        What was said, on the CPU.
    """
    H, W = image.shape[1:]
    found = []
    for scale in options.scales:
        size = scaled((H, W), options, scale=scale)
        small = resize(image[None], size, mode="bilinear")
        windows = sliding(size, window=options.window, stride=options.stride)
        for flipped in (False, True) if options.flip else (False,):
            seen = small.flip(3) if flipped else small
            views = torch.cat([seen[..., a:c, b:d] for a, b, c, d in windows.boxes()])
            scores = []
            for part in torch.split(views, options.batch):
                x = padded(prepare(part), encoder.config.patch)
                scores.append(decoder(encoder(x, want={"tokens"}).tokens).float().cpu())
            cover = (x.shape[2], x.shape[3])
            found.append(Said(torch.cat(scores), windows, cover, flipped))
    return found


def probabilities(
    said: Sequence[Said], size: tuple[int, int], *, strip: int = ELEMENTS
) -> Iterator[tuple[int, Tensor]]:
    """Average the probabilities of all scales, some rows of the photo at a time.

    Args:
        said: by `look`.
        size: (H, W) of the result.
        strip: most values of one scale at once.

    Yields:
        The first row, and float32 (K, rows, W), 0..1, which add up to 1 over K.
    """
    parts = [
        merged_strips(s.scores, s.windows, cover=s.cover, size=size, strip=strip) for s in said
    ]
    for same in zip(*parts, strict=True):
        total = torch.zeros(())
        for s, (_, merged) in zip(said, same, strict=True):
            total = total + (merged.flip(2) if s.flipped else merged).softmax(0)
        yield same[0][0], total / len(said)


def decide(said: Sequence[Said], size: tuple[int, int], *, strip: int = ELEMENTS) -> Tensor:
    """Find the best class of every pixel.

    Args:
        said: by `look`.
        size: (H, W) of the photo.
        strip: most values of one scale at once.

    Returns:
        int64 (H, W), 0..K-1.
    """
    if len(said) == 1 and not said[0].flipped:  # softmax changes no order
        [s] = said
        return merged_argmax(s.scores, s.windows, cover=s.cover, size=size, strip=strip)[0]
    labels = torch.empty(size, dtype=torch.int64)
    for top, shares in probabilities(said, size, strip=strip):
        labels[top : top + shares.shape[1]] = shares.argmax(0)
    return labels


def on_grid(said: Sequence[Said]) -> Tensor:
    """Sample the probabilities at the patches of the first scale, float32 (K, h, w)."""
    first = said[0]
    patch = first.cover[0] // first.scores.shape[2]
    H, W = first.windows.size
    return torch.cat([p for _, p in probabilities(said, (-(-H // patch), -(-W // patch)))], dim=1)


@torch.no_grad()
def attentions(
    encoder: ViT, decoder: nn.Module, image: Tensor, *, names: Mapping[int, str]
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Look into the networks: where CLS looks, and each class that occurs.

    Args:
        encoder: in evaluation mode.
        decoder: likewise; classes look only in a mask transformer.
        image: normalised, float32 (1, 3, H, W), seen whole.
        names: of classes.

    Returns:
        Tokens (h, w, D), the class of every patch int64 (h, w), and from name to map (h, w), 0..1,
        those of the largest classes first.
    """
    x = padded(image, encoder.config.patch)
    seen = encoder(x, want={"tokens", "attention"})
    tokens, attention = cast(Tensor, seen.tokens), cast(Tensor, seen.attention)
    parts = decoder(tokens)[0].argmax(0).cpu()
    maps = {"encoder, CLS, head mean": attention[0].mean(0).cpu()}
    if isinstance(decoder, MaskTransformer):
        paid = decoder.attention(tokens)[0].mean(0).cpu()  # (K, h, w)
        sizes = torch.bincount(parts.flatten(), minlength=len(paid))
        for i in sizes.argsort(descending=True, stable=True).tolist():
            if sizes[i]:
                maps[f"decoder, head mean, {names.get(i, f'category {i}')}"] = paid[i]
    return tokens[0].cpu(), parts, maps
