"""Random numbers for one thing alone, so that it does not matter what was drawn before."""

from __future__ import annotations

import numpy as np
import torch


def generator(*words: int) -> torch.Generator:
    """Make a source of random numbers, on the CPU.

    Args:
        words: what it is for, e.g. seed, kind and number; 0 or more each.

    Returns:
        A generator that other words share nothing with.
    """
    state = np.random.SeedSequence(words).generate_state(2)
    return torch.Generator().manual_seed(int(state[0]) << 31 ^ int(state[1]))
