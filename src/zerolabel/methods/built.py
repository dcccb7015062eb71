"""What is built of the arrays of a model, such as a network with its weights: once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from torch import Tensor

T = TypeVar("T")


class Built(Generic[T]):
    """Keeps one thing until the arrays that it was built of are others."""

    def __init__(self) -> None:
        self._kept: tuple[Tensor, T] | None = None

    def get(self, mark: Tensor, build: Callable[[], T]) -> T:
        """Return what was built.

        Args:
            mark: one of the arrays; another tensor than the last time means another model.
            build: builds it; not called while the mark is the same.

        Returns:
            What `build` returned for this mark.
        """
        if self._kept is None or self._kept[0] is not mark:
            self._kept = mark, build()
        return self._kept[1]
