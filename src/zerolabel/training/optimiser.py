"""What an optimiser is given: which parameters decay, and how long a gradient may be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from zerolabel.errors import unknown_name

OPTIMISERS = ("adamw", "sgd")
MOMENTUM = 0.9  # of SGD


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


def make(name: str, *networks: nn.Module, lr: float, decay: float) -> torch.optim.Optimizer:
    """Build an optimiser for the weights that learn, with weight decay where `groups` allows it.

    Args:
        name: a name in `OPTIMISERS`; SGD has a momentum of 0.9.
        networks: parameters that need no gradient are left out.
        lr: learning rate.
        decay: weight decay.

    Returns:
        The optimiser.

    Raises:
        UsageError: the name is unknown.
    """
    if name not in OPTIMISERS:
        raise unknown_name("optimiser", name, OPTIMISERS)
    halves = [groups(network) for network in networks]
    parts = [
        {"params": [p for half in halves for p in half[i] if p.requires_grad], "weight_decay": d}
        for i, d in enumerate((decay, 0.0))
    ]
    parts = [part for part in parts if part["params"]]
    if name == "sgd":
        return torch.optim.SGD(parts, lr=lr, momentum=MOMENTUM)
    return torch.optim.AdamW(parts, lr=lr, fused=True)


def state_of(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Everything that an optimiser remembers of its parameters, as tensors of a flat dict."""
    return {
        f"{i}/{key}": torch.as_tensor(value)
        for i, entry in optimiser.state_dict()["state"].items()
        for key, value in entry.items()
        if value is not None
    }


def restore(optimiser: torch.optim.Optimizer, state: Mapping[str, Tensor]) -> None:
    """Give an optimiser of the same parameters what `state_of` returned."""
    entries: dict[int, dict[str, Tensor]] = {}
    for name, value in state.items():
        number, _, key = name.partition("/")
        entries.setdefault(int(number), {})[key] = value.clone()  # changed in place later
    settings = optimiser.state_dict()["param_groups"]
    optimiser.load_state_dict({"state": entries, "param_groups": settings})
