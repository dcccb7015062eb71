"""Whether to compute in bfloat16."""

from __future__ import annotations

import torch


def use_amp(asked: str, device: torch.device) -> bool:
    """Decide on bfloat16: on GPUs, and on processors that multiply it faster than float32."""
    if asked != "auto":
        return asked == "on"
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    fast = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    return device.type == "cpu" and bool(fast())
