"""Normalised cuts as they are written: a matrix of all pairs of pixels; a loop over classes."""

import torch
import torch.nn.functional as F


def pair_weights(
    image, *, radius=5, sigma_value=10.0, sigma_place=4.0, squared=True, inclusive=True
):
    """Weights of all pairs of pixels of an image: (C, H, W) -> (N, N)."""
    C, H, W = image.shape
    values = image.reshape(C, -1).T  # (N, C)
    places = torch.cartesian_prod(torch.arange(H), torch.arange(W)).reshape(-1, 2).to(image)
    apart = (values[:, None] - values).square().sum(2)
    away = (places[:, None] - places).square().sum(2)
    power = 2 if squared else 1
    weights = torch.exp(-apart / sigma_value**power) * torch.exp(-away / sigma_place**power)
    near = away.sqrt() <= radius if inclusive else away.sqrt() < radius
    return torch.where(near, weights, 0)


def soft_ncut(probabilities, weights):
    """(K, H, W) and (N, N) -> a scalar."""
    degree = weights.sum(1)
    cut = 0
    for p in probabilities.flatten(1):
        if p.any():
            cut = cut + 1 - p @ weights @ p / (p @ degree)
        else:
            cut = cut + 1
    return cut


def class_mean_ncut(
    probabilities, images, *, radius=4, sigma_place=5.0, sigma_value=1.0, pooled=False
):
    """(B, K, H, W) and (B, C, H, W) -> (B,), or a scalar if pooled; two dense filters a class."""
    steps = torch.arange(-radius, radius + 1, dtype=images.dtype, device=images.device)
    kernel = torch.exp(-(steps[:, None] ** 2 + steps**2) / (2 * sigma_place**2))[None, None]
    over = (0, 1, 2, 3) if pooled else (1, 2, 3)
    cut = 0
    for k in range(probabilities.shape[1]):
        p = probabilities[:, k : k + 1]
        mean = (images * p).mean((2, 3), keepdim=True) / (p.mean((2, 3), keepdim=True) + 1e-5)
        weights = torch.exp(-((images - mean).square().sum(1, keepdim=True) ** 2) / sigma_value**2)
        inside = (p * F.conv2d(p * weights, kernel, padding=radius)).sum(over)
        total = (p * F.conv2d(weights, kernel, padding=radius)).sum(over)
        cut = cut + 1 - (inside / (total + 1e-6)).abs()
    return cut
