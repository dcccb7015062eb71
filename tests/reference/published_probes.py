"""The probes of MaskContrast and STEGO as torch.nn writes them: whole batches, pixels of tokens."""

import torch
import torch.nn.functional as F
from torch import nn


def grid(tokens):
    return tokens.permute(0, 3, 1, 2)


def maskcontrast(batches, *, weight, rates, momentum=0.9, decay=1e-4):
    """Train a 1x1 convolution; `batches` are (tokens, labels), one learning rate for each."""
    conv = nn.Conv2d(weight.shape[1], weight.shape[0], 1)
    nn.init.zeros_(conv.bias)
    conv.weight.data.copy_(weight[:, :, None, None])
    optimiser = torch.optim.SGD(conv.parameters(), lr=1, momentum=momentum, weight_decay=decay)
    for (tokens, labels), rate in zip(batches, rates, strict=True):
        optimiser.param_groups[0]["lr"] = rate
        logits = F.interpolate(conv(grid(tokens)), labels.shape[1:], mode="bilinear")
        optimiser.zero_grad()
        nn.CrossEntropyLoss(ignore_index=255)(logits, labels).backward()
        optimiser.step()
    return conv


def stego(batches, *, weight, bias, prototypes, lr):
    """Train both probes in one optimiser, as one loss."""
    conv = nn.Conv2d(weight.shape[1], weight.shape[0], 1)
    conv.weight.data.copy_(weight[:, :, None, None])
    conv.bias.data.copy_(bias)
    clusters = nn.Parameter(prototypes.clone())
    optimiser = torch.optim.Adam([*conv.parameters(), clusters], lr=lr)
    for tokens, labels in batches:
        C = len(weight)
        logits = F.interpolate(conv(grid(tokens)), labels.shape[1:], mode="bilinear")
        flat = logits.permute(0, 2, 3, 1).reshape(-1, C)
        valid = (labels.reshape(-1) >= 0) & (labels.reshape(-1) < C)
        linear = nn.CrossEntropyLoss()(flat[valid], labels.reshape(-1)[valid])
        cosine = torch.einsum(
            "bdhw,cd->bchw", F.normalize(grid(tokens), dim=1), F.normalize(clusters, dim=1)
        )
        target = F.one_hot(cosine.argmax(1), C).permute(0, 3, 1, 2)
        cluster = -(target * cosine).sum(1).mean()
        optimiser.zero_grad()
        (linear + cluster).backward()
        optimiser.step()
    return conv, clusters.detach()


def assign(tokens, prototypes, size):
    """Prototype of every pixel: tokens upsampled first, then compared; (h, w, D) -> (*size)."""
    code = F.interpolate(grid(tokens[None]), size, mode="bilinear")
    cosine = torch.einsum("bdhw,cd->bchw", F.normalize(code, dim=1), F.normalize(prototypes, dim=1))
    return F.log_softmax(2 * cosine, dim=1).argmax(1)[0]
