"""ReCLIP++ as it is written: image by image, word by word, position by position."""

import math

import torch
import torch.nn.functional as F


def contrastive(mask, dense, queries, present, *, pool="area", cosine=False, scale=100.0):
    """Equation 7, one image, word and position at a time."""
    losses = []
    for image in range(len(mask)):
        held = [k for k in range(len(queries)) if present[image, k]]
        if not held:
            continue
        total = 0
        for k in held:
            z, area, positions = 0, 0, 0
            for row in range(mask.shape[2]):
                for column in range(mask.shape[3]):
                    z = z + mask[image, k, row, column] * dense[image, row, column]
                    area = area + mask[image, k, row, column]
                    positions += 1
            z = z / (positions if pool == "area" else area)
            if cosine:
                z = z / z.norm()
            scores = [scale * (z * query).sum() for query in queries]
            total = total + torch.stack(scores).logsumexp(0) - scores[k]
        losses.append(total / len(held))
    return sum(losses) / len(losses)


def denoise(logits, *, least, temperature):
    """Which words are kept, position by position; the surest of all at least."""
    words, height, width = logits.shape
    best = [0.0] * words
    for row in range(height):
        for column in range(width):
            shares = (temperature * logits[:, row, column]).softmax(0)
            best = [max(b, float(s)) for b, s in zip(best, shares, strict=True)]
    kept = [b >= least for b in best]
    kept[best.index(max(best))] = True
    return kept


def smooth(shares, keys, *, below):
    """Key smoothing with the whole N x N matrix of cosines."""
    p = shares.flatten(1)
    k = keys.flatten(0, 1)
    out = p.clone()
    for i in range(len(k)):
        if p[:, i].max() < below:
            out[:, i] = sum(F.cosine_similarity(k[i], k[j], dim=0) * p[:, j] for j in range(len(k)))
    return out.view_as(shares)


def code_windows(height, width, side):
    """The published loop over squares."""
    boxes = []
    for row in range(0, height - side, side // 2):
        for column in range(0, width - side, side // 2):
            boxes.append([row, column, row + side, column + side])
    return boxes


def shares(joint, queries):
    """How often each word is the nearest."""
    counts = [0] * len(queries)
    for crop in joint:
        cosines = [float(F.cosine_similarity(crop, query, dim=0)) for query in queries]
        counts[cosines.index(max(cosines))] += 1
    return [count / len(joint) for count in counts]


def rectified(net, dense, queries, references, positions):
    """Equations 2 to 4 of ReCLIP++, with W_p, M_b and the concatenation at full size."""
    height, width, _ = positions.shape
    project = net.space.weight[:, :, None, None]  # a convolution of 1x1
    grid = positions.permute(2, 0, 1)[None]
    w_p = F.conv2d(grid, project, net.space.bias)[0].flatten(1).T  # (n, P)
    m_b = w_p @ references.T  # equation 2
    outs = []
    for z in dense:
        m_q = z.reshape(height * width, -1) @ queries.T
        m = m_q - m_b if net.config.combine == "subtract" else m_q + m_b  # equation 3
        outs.append(m.T.reshape(1, -1, height, width))
    m = torch.cat(outs)
    if net.decoder is None:
        return m
    joined = torch.cat([dense.permute(0, 3, 1, 2), m], 1)
    return net.decoder.norm(net.decoder.conv(joined))  # equation 4


def windows_per_axis(share):
    """(2 / r - 1) windows for whole 1 / r."""
    return math.floor(2 / share - 1 + 1e-9)
