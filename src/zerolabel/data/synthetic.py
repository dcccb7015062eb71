"""All planted worlds: images and features whose true categories are known.

A world shares its categories across all of its images, as real data sets do; every image shows some
of them as regions of organic shape. Nothing here is downloaded or stored.
"""

from __future__ import annotations

import colorsys

import numpy as np
from numpy.typing import NDArray

from zerolabel.data.folder import from_arrays
from zerolabel.types import Image, LabelMap, Sample


def world(
    categories: int,
    *,
    images: int = 24,
    size: tuple[int, int] = (96, 128),
    seed: int = 0,
    per_image: int = 4,
    noise: float = 12.0,
) -> list[Sample]:
    """Plant a world of textured categories.

    Each category has a colour of its own and a grating of its own direction and wavelength; each
    image is a soft Voronoi map of up to `per_image` categories, with uneven light and pixel noise.

    Args:
        categories: number of categories K.
        images: number of images.
        size: (H, W) of every image in pixels.
        seed: fixes the world.
        per_image: most categories in one image.
        noise: standard deviation of the pixel noise, in grey levels of 0..255.

    Returns:
        Samples with labels 0..K-1; every category occurs in the world if there is room for it.
    """
    rng = np.random.default_rng(seed)
    styles = _styles(categories, rng)
    order = np.concatenate([rng.permutation(categories) for _ in range(images * per_image)])
    samples = []
    for i in range(images):
        used = np.unique(order[i * per_image : (i + 1) * per_image])
        label = used[_voronoi(len(used), size, rng)].astype(np.uint8)
        image = _paint(label, styles, noise, rng)
        samples.append(from_arrays(f"world-{i:03d}.png", image, label))
    return samples


def directions(
    k: int, n: int, *, dim: int = 64, cosine: float = 0.85, seed: int = 0
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Plant unit vectors around k orthogonal directions.

    Args:
        k: number of directions, at most `dim`.
        n: vectors per direction.
        dim: channels D.
        cosine: similarity of every vector to its own direction.
        seed: fixes the draw.

    Returns:
        Vectors float32 (k*n, D) in random order and their true directions int64 (k*n,).
    """
    rng = np.random.default_rng(seed)
    centres = np.linalg.qr(rng.standard_normal((dim, k)))[0].T  # (k, D), orthonormal
    truth = rng.permutation(np.repeat(np.arange(k), n))
    own = centres[truth]
    other = rng.standard_normal((k * n, dim))
    other -= (other * own).sum(1, keepdims=True) * own
    other /= np.linalg.norm(other, axis=1, keepdims=True)
    x = cosine * own + np.sqrt(1 - cosine**2) * other
    return x.astype(np.float32), truth


def shared_directions(
    images: int,
    *,
    patches: int = 64,
    dim: int = 64,
    count: int = 8,
    cosine: float = 0.8,
    seed: int = 0,
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Plant the patch features of a data set in which every image shows 2, 3 or 4 of some things.

    Args:
        images: number of images; their numbers of things take turns.
        patches: N, patches per image.
        dim: channels D.
        count: directions that all images share, at least 60 degrees apart.
        cosine: least similarity of a patch to its own direction; the most is 1.
        seed: fixes the draw.

    Returns:
        Unit vectors float32 (images, N, D) and their true directions int64 (images, N).
    """
    rng = np.random.default_rng(seed)
    centres = np.zeros((0, dim))
    while len(centres) < count:
        new = rng.standard_normal(dim)
        new /= np.linalg.norm(new)
        if (centres @ new <= 0.5).all():
            centres = np.concatenate([centres, new[None]])
    truth = np.stack(
        [rng.choice(rng.permutation(count)[: 2 + i % 3], patches) for i in range(images)]
    )
    own = centres[truth]  # (images, N, D)
    other = rng.standard_normal(own.shape)
    other -= (other * own).sum(-1, keepdims=True) * own
    other /= np.linalg.norm(other, axis=-1, keepdims=True)
    near = rng.uniform(cosine, 1, (*truth.shape, 1))
    return (near * own + np.sqrt(1 - near**2) * other).astype(np.float32), truth


def _styles(k: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Colour (3), grating direction (2, scaled by frequency) and contrast of each category."""
    hue = (np.arange(k) + rng.random()) / k
    light = 0.55 + 0.35 * (np.arange(k) % 2) + 0.05 * rng.random(k)
    colours = np.array([colorsys.hsv_to_rgb(h, 0.65, v) for h, v in zip(hue, light, strict=True)])
    angle = np.pi * (np.arange(k) * 0.381966 % 1)  # golden ratio: neighbours in hue differ most
    wavelength = np.array([4.0, 7.0, 12.0])[rng.permutation(k) % 3]
    gratings = np.stack([np.cos(angle), np.sin(angle)], 1) * (2 * np.pi / wavelength)[:, None]
    return np.concatenate([255 * colours, gratings, np.full((k, 1), 28.0)], axis=1)


def _voronoi(k: int, size: tuple[int, int], rng: np.random.Generator) -> NDArray[np.int64]:
    """Cells of k seeds under a smoothly warped distance, so that borders are curved."""
    H, W = size
    row, col = np.mgrid[:H, :W] / max(size)
    for _ in range(2):
        fr, fc, phase = rng.uniform(1, 3, 3) * 2 * np.pi
        row, col = row + 0.04 * np.sin(fc * col + phase), col + 0.04 * np.sin(fr * row + phase)
    # Seeds on a jittered ring: every cell gets a fair share of the image.
    angle = 2 * np.pi * (np.arange(k) + rng.random() + 0.3 * rng.random(k)) / k
    seeds = np.stack([H / 2 + 0.3 * H * np.sin(angle), W / 2 + 0.3 * W * np.cos(angle)], 1)
    seeds /= max(size)
    distance = (row[None] - seeds[:, 0, None, None]) ** 2 + (
        col[None] - seeds[:, 1, None, None]
    ) ** 2
    return np.asarray(distance.argmin(0))


def _paint(
    label: LabelMap, styles: NDArray[np.float64], noise: float, rng: np.random.Generator
) -> Image:
    """Colour, grating, uneven light and noise for a label map."""
    row, col = np.mgrid[: label.shape[0], : label.shape[1]]
    style = styles[label]  # (H, W, 6)
    wave = np.sin(style[..., 3] * row + style[..., 4] * col + rng.uniform(0, 2 * np.pi))
    slope = rng.uniform(-0.12, 0.12, 2)
    light = 1 + slope[0] * (row / label.shape[0] - 0.5) + slope[1] * (col / label.shape[1] - 0.5)
    image = style[..., :3] * light[..., None] + (style[..., 5] * wave)[..., None]
    image += rng.normal(0, noise, image.shape)
    return np.asarray(np.clip(image, 0, 255), np.uint8)
