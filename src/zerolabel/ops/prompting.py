"""What MaskCLIP does to the scores of words before the best one wins.

Words that no position is sure of are dropped (prompt denoising), positions that are not sure ask
those with similar keys (key smoothing), and the words of one category become one score. Shapes:
`Q` words, `K` categories, `h w` patch grid, `N = h*w` positions, `D` channels of the keys.

Source: Zhou et al., "Extract free dense labels from CLIP", ECCV 2022, section 3.2, and the
published code.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from zerolabel.errors import UsageError

NOTHING = -100.0  # score of a word that was dropped


def denoise(logits: Tensor, *, least: float, temperature: float) -> Tensor:
    """Decide which words an image keeps: those that some position is sure of.

    Args:
        logits: float (Q, h, w), cosines or rectified scores.
        least: a word is kept if its largest share over all positions reaches this; 0 keeps all,
            and 1 those whose share is 1 in float32.
        temperature: what the logits are multiplied with before the softmax over words; published
            as 100 for MaskCLIP and ReCLIP, 10 for ReCLIP++.

    Returns:
        bool (Q,), never all False: where no word reaches `least`, the one with the largest share
        stays. (As published all scores would be equal then, and the first word won everywhere.)

    Raises:
        UsageError: no words or no positions, or a temperature that is not above 0.
    """
    if logits.ndim != 3 or not logits.numel():
        raise UsageError(f"Expected logits (Q, h, w) of a word; found {tuple(logits.shape)}.")
    if not temperature > 0:
        raise UsageError(f"temperature must be above 0, got {temperature}.")
    best = (temperature * logits.float()).softmax(dim=0).amax(dim=(1, 2))
    kept = best >= least
    kept[best.argmax()] = True
    return kept


def fill(logits: Tensor, kept: Tensor) -> Tensor:
    """Give words that are not kept a score that never wins.

    Args:
        logits: float (Q, h, w).
        kept: bool (Q,).

    Returns:
        A new (Q, h, w): on the words that are not kept -100, or less where scores are that low.
    """
    return torch.where(kept[:, None, None], logits, (logits.amin() - 1).clamp_max(NOTHING))


def smooth(shares: Tensor, keys: Tensor, *, below: float) -> Tensor:
    """Let positions that are not sure take the shares of all others, weighted by similar keys.

    P_i becomes sum_j cos(k_i, k_j) P_j, which is not normalised. The sum over j is the same D x Q
    matrix for every i, so no N x N matrix is made: 2 N D Q products instead of N N (D + Q).

    Args:
        shares: float (Q, h, w), the softmax over words.
        keys: float (h, w, D), last-block keys of the patches, any lengths. They are normalised
            along the channels; the published code does so along the positions.
        below: positions whose largest share is below this change; above 1 all do, 0 none.

    Returns:
        A new (Q, h, w).

    Raises:
        UsageError: shapes that do not fit together.
    """
    if shares.ndim != 3 or keys.ndim != 3 or shares.shape[1:] != keys.shape[:2]:
        found = f"{tuple(shares.shape)} and {tuple(keys.shape)}"
        raise UsageError(f"Expected shares (Q, h, w) and keys (h, w, D); found {found}.")
    k = F.normalize(keys.flatten(0, 1).to(shares.dtype), dim=1)  # (N, D)
    p = shares.flatten(1)  # (Q, N)
    smoothed = (p @ k) @ k.T  # (Q, D), (Q, N)
    return torch.where(p.amax(0) < below, smoothed, p).view_as(shares)


def fold(scores: Tensor, groups: Tensor) -> Tensor:
    """Take the best word of every category.

    Args:
        scores: float (Q, ...), of words.
        groups: int64 (Q,), the category of each word, 0..K-1; every category has a word.

    Returns:
        (K, ...), the largest score of its words; `scores` itself where every word is a category.

    Raises:
        UsageError: not one category per word, or a category without words.
    """
    names = groups.tolist()
    if len(names) != len(scores) or sorted(set(names)) != list(range(max(names, default=-1) + 1)):
        found = f"{len(scores)} words in the categories {sorted(set(names))}"
        raise UsageError(f"Expected a category 0..K-1 for each word, none empty; found {found}.")
    if names == list(range(len(names))):
        return scores
    first = [names.index(k) for k in range(max(names) + 1)]
    best = scores[first]  # a copy
    for word, k in enumerate(names):
        if word != first[k]:  # row by row: `index_reduce` warns, and is no faster
            torch.maximum(best[k], scores[word], out=best[k])
    return best
