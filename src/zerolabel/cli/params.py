"""How values on the command line are written, where click has no word for them."""

from __future__ import annotations

from typing import Any

import click


class K(click.ParamType):  # type: ignore[type-arg]  # generic from click 8.3 on only
    """A number of categories, a range of it, or "auto"."""

    name = "auto|N|N-M"

    def convert(self, value: Any, param: Any, ctx: Any) -> int | str:
        """Parse it; anything else is wrong usage."""
        if value == "auto":
            return "auto"
        parts = str(value).split("-")
        if len(parts) > 2 or not all(part.isdecimal() and int(part) for part in parts):
            expected = "auto or a whole number from 1 on"
            self.fail(f"expected {expected}, found {value!r}. A range is 8-30.", param, ctx)
        return int(value) if len(parts) == 1 else str(value)


class Size(click.ParamType):  # type: ignore[type-arg]
    """Pixels: one number for a square, or rows and columns."""

    name = "N|HxW"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[int, int]:
        """Parse it; anything else is wrong usage."""
        parts = str(value).lower().split("x")
        if len(parts) > 2 or not all(part.isdecimal() and int(part) for part in parts):
            self.fail(f"expected pixels such as 224 or 224x320, found {value!r}.", param, ctx)
        return int(parts[0]), int(parts[-1])


class Numbers(click.ParamType):  # type: ignore[type-arg]
    """Whole numbers, separated by commas."""

    name = "N,N,..."

    def __init__(self, example: str, *, least: int = 1) -> None:
        self.example, self.least = example, least

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[int, ...]:
        """Parse them; anything else is wrong usage."""
        parts = [part.strip() for part in str(value).split(",")]
        if not all(part.isdecimal() and int(part) >= self.least for part in parts):
            self.fail(
                f"expected whole numbers such as {self.example}, found {value!r}.", param, ctx
            )
        return tuple(map(int, parts))


class Levels(click.ParamType):  # type: ignore[type-arg]
    """Numbers of categories, separated by commas; "auto" may be one of them."""

    name = "N,N,..."

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[int | str, ...]:
        """Parse them; anything else is wrong usage."""
        return tuple(K().convert(part.strip(), param, ctx) for part in str(value).split(","))
