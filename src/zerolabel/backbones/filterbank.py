"""A backbone that needs no weights: a patch dictionary learned from the images at hand.

Whitened patches at three scales are coded by a dictionary of their own directions (Coates and Ng
2012: whitening, spherical k-means, two-sided rectification), pooled on a stride-8 grid and joined
by mean colour and position. Every block of the descriptor is centred and scaled to a stated share
of the variance, so descriptors are signed and their dot products split into alike and unlike.
No label, no network, no download: the floor that learned features must beat.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from zerolabel.errors import DataError, UsageError
from zerolabel.ops.cluster import kmeans
from zerolabel.types import Features

STRIDE = 8  # pixels per cell of the grid
CONTRAST = 10 / 255**2  # variance below which a patch counts as flat (Coates and Ng, section 3.1)


@dataclass(frozen=True)
class Config:
    """Settings of the dictionary; docs/filterbank.md says on what they were chosen.

    Attributes:
        atoms: dictionary entries per scale; each gives two channels, one per sign.
        patch: side of a patch in pixels.
        scales: images are averaged down by these factors before patches are cut.
        threshold: responses below it count as zero.
        pool: side of the pooling window in cells of the grid, odd.
        texture, colour, position: variance of each block of the descriptor; 0 leaves it out.
        patches: how many patches per scale are drawn to learn the dictionary.
    """

    atoms: int = 48
    patch: int = 6
    scales: tuple[int, ...] = (1, 2, 4)
    threshold: float = 0.5
    pool: int = 3
    texture: float = 1.0
    colour: float = 2.0
    position: float = 0.5
    patches: int = 20_000


class FilterBank:
    """The dictionary as a backbone: `learn` it, then `encode`."""

    name = "filterbank"
    gives = frozenset({"tokens"})
    stride = STRIDE
    learns = 200  # images that `learn` wants to see; more change little

    def __init__(self, config: Config | None = None, *, device: str = "cpu") -> None:
        self.config = config or Config()
        self.device = torch.device(device)
        self._state: dict[str, Tensor] = {}

    @property
    def dim(self) -> int:
        """Channels D of a token: two per atom and scale, colour (6) and position (2)."""
        return 2 * self.config.atoms * len(self.config.scales) + 8

    @property
    def digest(self) -> str:
        """Hash of the settings and of what was learned."""
        digest = hashlib.blake2b(repr(self.config).encode(), digest_size=16)
        for name, value in sorted(self._state.items()):
            digest.update(name.encode() + value.cpu().numpy().tobytes())
        return digest.hexdigest()

    def state(self) -> dict[str, Tensor]:
        """What was learned, by name; empty before `learn`."""
        return {name: value.cpu() for name, value in self._state.items()}

    def restore(self, state: Mapping[str, Tensor]) -> FilterBank:
        """Take over what another instance of the same settings had learned."""
        self._state = {name: value.to(self.device) for name, value in state.items()}
        return self

    @torch.no_grad()
    def learn(self, batches: Iterable[Tensor], *, seed: int = 0) -> FilterBank:
        """Learn dictionary, mean and scale from unlabelled images.

        Args:
            batches: uint8 (B, 3, H, W), at the size at which images will be encoded.
            seed: fixes the patches drawn and the dictionary.

        Returns:
            Itself.

        Raises:
            UsageError: there is no image.
            DataError: images smaller than a cell.
        """
        images = [_checked(batch).to(self.device) for batch in batches]
        if not images:
            raise UsageError("The filter bank needs at least one image to learn from, got none.")
        generator = torch.Generator().manual_seed(seed)
        per_image = max(1, self.config.patches // sum(len(batch) for batch in images))
        self._state = {}
        for i, scale in enumerate(self.config.scales):
            patches = [
                _draw(_shrink(batch, scale), self.config.patch, per_image, generator)
                for batch in images
            ]
            filters, bias = _dictionary(torch.cat(patches), self.config.atoms, seed)
            self._state |= {f"filters.{i}": filters, f"bias.{i}": bias}
        mean, variance = self._moments(images)
        self._state |= {"mean": mean, "scale": self._block_scale(variance)}
        return self

    @torch.no_grad()
    def encode(self, images: Tensor, *, want: Collection[str] = ("tokens",)) -> Features:
        """Compute centred, signed patch descriptors.

        Args:
            images: uint8 (B, 3, H, W); rows and columns beyond a multiple of 8 are ignored.
            want: {"tokens"}, all this backbone gives.

        Returns:
            Features with tokens float32 (B, H/8, W/8, D).

        Raises:
            UsageError: nothing was learned yet, or something else is wanted.
            DataError: images smaller than a cell.
        """
        if not self._state:
            raise UsageError("The filter bank has learned nothing yet: call learn() first.")
        if set(want) - self.gives:
            raise UsageError(f"filterbank gives tokens only, not {sorted(set(want) - self.gives)}.")
        raw = self._describe(_checked(images).to(self.device))
        return Features(tokens=(raw - self._state["mean"]) * self._state["scale"])

    def within(self, context: Tensor, masks: Tensor) -> Tensor:
        """Refuse: a patch dictionary has no CLS token that could look at a region."""
        raise UsageError(
            "filterbank has no CLS token to describe a region with. Use another --backbone, or "
            "--describe pool."
        )

    def _moments(self, images: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Mean and variance of the raw descriptors, (D,) each, without holding them all."""
        sums = torch.zeros(2, self.dim, device=self.device)
        count = 0
        for batch in images:
            raw = self._describe(batch).flatten(0, 2)
            sums += torch.stack([raw.sum(0), raw.square().sum(0)])
            count += len(raw)
        mean, square = sums / count
        return mean, (square - mean.square()).clamp_min(0)

    def _describe(self, images: Tensor) -> Tensor:
        """Raw descriptors (B, h, w, D) in blocks: texture per scale, colour, position."""
        h, w = images.shape[-2] // STRIDE, images.shape[-1] // STRIDE
        images = images[..., : h * STRIDE, : w * STRIDE]
        texture = [self._texture(_shrink(images, s), i) for i, s in enumerate(self.config.scales)]
        row = torch.linspace(-1, 1, h, device=self.device)[:, None].expand(h, w)
        col = torch.linspace(-1, 1, w, device=self.device)[None].expand(h, w)
        place = torch.stack([row, col]).expand(len(images), 2, h, w)
        return torch.cat([*texture, _colour(images), place], 1).permute(0, 2, 3, 1)

    def _texture(self, level: Tensor, i: int) -> Tensor:
        """Pooled two-sided responses of one scale, (B, 2*atoms, h, w).

        Patches are taken two cells apart in half cells of the grid, whatever the scale: four
        samples per cell, which the pooling window averages.
        """
        p, scale = self.config.patch, self.config.scales[i]
        step = max(1, STRIDE // (2 * scale))
        # Centre the p-wide patches on their step-wide half cells.
        left = (p - step) // 2
        level = F.pad(level, (left, p - step - left) * 2, mode="replicate")
        mean = F.avg_pool2d(level, p, stride=step).mean(1, keepdim=True)
        square = F.avg_pool2d(level.square(), p, stride=step).mean(1, keepdim=True)
        contrast = ((square - mean.square()).clamp_min(0) + CONTRAST).sqrt()
        weight = self._state[f"filters.{i}"].reshape(-1, 3, p, p)
        bias = self._state[f"bias.{i}"][:, None, None]
        response = F.conv2d(level, weight, stride=step) / contrast + bias
        signs = torch.cat([response, -response], 1).sub_(self.config.threshold).relu_()
        cells = F.avg_pool2d(signs, STRIDE // (scale * step))
        return _window(cells, self.config.pool).sqrt()

    def _block_scale(self, variance: Tensor) -> Tensor:
        """Factors that give each block its stated variance, whatever its channels."""
        c, last = self.config, self.dim - 8
        scale = torch.empty_like(variance)
        blocks = (
            (0, last, c.texture),
            (last, last + 6, c.colour),
            (last + 6, self.dim, c.position),
        )
        for start, end, share in blocks:
            total = variance[start:end].sum().clamp_min(1e-8)
            scale[start:end] = (share / total).sqrt()
        return scale


def _checked(images: Tensor) -> Tensor:
    if min(images.shape[-2:]) < STRIDE:
        raise DataError(
            f"filterbank needs images of at least {STRIDE}x{STRIDE} pixels, found "
            f"{images.shape[-2]}x{images.shape[-1]}. Enlarge them first."
        )
    return images


def _shrink(images: Tensor, factor: int) -> Tensor:
    """Images as floats in 0..1, averaged down by a factor."""
    x = images.float() / 255
    return F.avg_pool2d(x, factor) if factor > 1 else x


def _draw(level: Tensor, p: int, count: int, generator: torch.Generator) -> Tensor:
    """Draw `count` random p x p patches per image, (B*count, 3*p*p)."""
    B, _, H, W = level.shape
    if min(H, W) < p:
        level = F.pad(level, (0, max(0, p - W), 0, max(0, p - H)), mode="replicate")
        _, _, H, W = level.shape
    shape = (B, count, 1, 1)
    row = torch.randint(H - p + 1, shape, generator=generator) + torch.arange(p)[:, None]
    col = torch.randint(W - p + 1, shape, generator=generator) + torch.arange(p)
    index = (row * W + col).flatten(1).to(level.device)  # (B, count*p*p)
    picked = level.flatten(2).gather(2, index[:, None].expand(-1, 3, -1))
    # (B, 3, count*p*p) -> (B*count, 3*p*p)
    return picked.reshape(B, 3, count, p * p).transpose(1, 2).reshape(B * count, 3 * p * p)


def _dictionary(patches: Tensor, atoms: int, seed: int) -> tuple[Tensor, Tensor]:
    """Whiten patches (ZCA) and cluster their directions; fold whitening into filters and bias.

    Returns:
        filters (atoms, 3*p*p), which ignore a patch's mean, and bias (atoms,).
    """
    x = patches - patches.mean(1, keepdim=True)
    x = x / (x.square().mean(1, keepdim=True) + CONTRAST).sqrt()
    mean = x.mean(0)
    values, vectors = torch.linalg.eigh(torch.cov((x - mean).T.double(), correction=0))
    gains = (values.clamp_min(0) + 0.1 * values.mean().clamp_min(1e-6)).rsqrt()
    whiten = ((vectors * gains) @ vectors.T).float()
    white = F.normalize((x - mean) @ whiten, dim=1)
    centroids = kmeans(
        white, min(atoms, len(white)), seed=seed, restarts=1, iterations=30
    ).centroids
    directions = F.normalize(centroids, dim=1)
    if len(directions) < atoms:  # fewer patches than atoms: the rest never responds
        directions = F.pad(directions, (0, 0, 0, atoms - len(directions)))
    filters = directions @ whiten
    return filters - filters.mean(1, keepdim=True), -(filters @ mean)


def _colour(images: Tensor) -> Tensor:
    """Opponent colours per cell and around it, (B, 6, h, w)."""
    r, g, b = F.avg_pool2d(images.float() / 255, STRIDE).unbind(1)
    # Chroma varies less than light in photos; doubling it brings both to a like spread.
    near = torch.stack([(r + g + b) / 3, 2 * (r - g), (r + g) - 2 * b], 1)
    return torch.cat([near, _window(near, 5)], 1)


def _window(x: Tensor, side: int) -> Tensor:
    """Mean over a window of cells, borders repeated."""
    if side == 1:
        return x
    padded = F.pad(x, [side // 2] * 4, mode="replicate")
    return F.avg_pool2d(padded, side, stride=1)
