"""What AdamW is given: which parameters decay, and how long a gradient may be."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn


@torch.no_grad()
def clip(parameters: Sequence[nn.Parameter], limit: float) -> None:
    """Shorten every parameter's gradient to a norm of at most `limit`; 0 leaves them alone.

    Source:
        The published code of DINO clips each parameter by itself, not all together.
    """
    grads = [p.grad for p in parameters if p.grad is not None]
    if not limit or not grads:
        return
    norms = torch._foreach_norm(grads)
    torch._foreach_mul_(grads, [(limit / (norm + 1e-6)).clamp(max=1) for norm in norms])


def groups(student: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Parameters with and without weight decay: matrices, but no positions and no tokens."""
    decayed: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    for name, value in student.named_parameters():
        single = value.ndim < 2 or name.endswith(("pos_embed", "_token", "_tokens", "prototypes"))
        (plain if single else decayed).append(value)
    return decayed, plain
