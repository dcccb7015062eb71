"""What a training run needs to go on exactly where it was."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch

from zerolabel.errors import StoreError
from zerolabel.store import write_bytes

FORMAT = 1


def save(path: Path, content: dict[str, Any]) -> None:
    """Write a checkpoint whole or not at all.

    Args:
        path: where.
        content: tensors, numbers, strings, and lists and dicts of them.

    Raises:
        StoreError: it cannot be written.
    """
    buffer = io.BytesIO()
    torch.save({"format": FORMAT, **content}, buffer)
    write_bytes(path, buffer.getvalue())


def load(path: Path) -> dict[str, Any] | None:
    """Read a checkpoint.

    Args:
        path: where.

    Returns:
        What was saved, on the CPU; None if there is none.

    Raises:
        StoreError: it is damaged, or of another version.
    """
    if not path.exists():
        return None
    try:
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle can raise anything
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise StoreError(
            f"{path} is damaged ({reason}). Delete it to start again, or choose another --out."
        ) from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise StoreError(f"{path} is no checkpoint of this version. Choose another --out.")
    return content
