"""Give the categories of a finished run names: by words, by hand, or by ground truth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from zerolabel.errors import UsageError
from zerolabel.jobs.naming.finished import read_finished
from zerolabel.jobs.naming.hand import read_sheet, write_sheet
from zerolabel.jobs.naming.truth import by_truth
from zerolabel.jobs.naming.vocabulary import Look, by_vocabulary
from zerolabel.jobs.run.names import unnamed, write_names
from zerolabel.outputs.renaming import rewrite_names
from zerolabel.stages.naming import Choice, distinct
from zerolabel.store import Progress, Store
from zerolabel.types import Category, Naming

VOCABULARY, CSV, TRUTH, SHEET, RESET = "vocabulary", "csv", "truth", "write_csv", "reset"
OPTIONS: dict[str, frozenset[str]] = {  # way -> what it takes beside its own value
    VOCABULARY: frozenset(
        ["data", "split", "unique", "backbone", "weights", "device", "size", "templates", "images"]
    ),
    CSV: frozenset(),
    TRUTH: frozenset(["data", "split", "unique", "space"]),
    SHEET: frozenset(),
    RESET: frozenset(),
}
DECIMALS = 4  # of the scores that are kept
SHOWN = 3  # names in a note


@dataclass(frozen=True)
class Named:
    """What came out.

    Attributes:
        path: the run directory.
        way: "vocabulary", "csv", "truth", "write_csv" or "reset".
        categories: index = id, with their names and how they came by them.
        notes: what the user should know.
        files: what was written.
    """

    path: Path
    way: str
    categories: tuple[Category, ...]
    notes: tuple[str, ...]
    files: tuple[Path, ...]


def name(run: str | Path, *, progress: Progress | None = None, **asked: Any) -> Named:
    """Give the categories of a run names, in exactly one of five ways.

    Names go into `categories.json`, `model.json` and the report; masks and colours stay. Given
    again, they replace those from before; `segment` and `predict` keep them.

    Args:
        run: a folder that `segment` or `predict` wrote.
        progress: called with (work, items done, items in all).
        **asked: one of `vocabulary` (a label space, a file or a list of words), `csv` (a table with
            id and name), `truth=True`, `write_csv` (where to write such a table) and `reset=True`;
            with a vocabulary the fields of `Look`; with truth `data`, `split`, `space`, `unique`.
            What is None or False counts as not given.

    Returns:
        The names, and what was written.

    Raises:
        ZerolabelError: anything that a user can mend; it says how.
    """
    root = Path(run)
    way, options = _way({key: value for key, value in asked.items() if value not in (None, False)})
    categories = read_finished(root)
    if way == SHEET:
        path = Path(options[SHEET])
        write_sheet(path, categories)
        return Named(root, way, categories, (), (path,))
    store = Store(root, report=progress)
    with store.lock():
        categories = read_finished(root)  # nobody else changes it now
        renamed, notes = _rename(root, categories, way, options, store)
        write_names(root, renamed)
        page = rewrite_names(root, renamed)
    files = [root / "categories.json", *([root / "model.json"] if _is_model(root) else [])]
    return Named(root, way, renamed, tuple(notes), (*files, *([page] if page else [])))


def _is_model(root: Path) -> bool:
    return (root / "model.json").exists()


def _way(given: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Find the one way that was asked for, and check that the options go with it."""
    ways = [way for way in OPTIONS if way in given]
    if len(ways) != 1:
        raise UsageError(
            f"Expected one of {', '.join(map(_flag, OPTIONS))}; found "
            f"{' and '.join(map(_flag, ways)) or 'none of them'}. Give exactly one."
        )
    way, options = ways[0], dict(given)
    odd = [key for key in options if key != way and key not in OPTIONS[way]]
    if odd:
        takers = [_flag(other) for other, names in OPTIONS.items() if odd[0] in names]
        where = f"goes with {' or '.join(takers)}" if takers else "is no option"
        raise UsageError(f"{_flag(odd[0])} {where}, not with {_flag(way)}. Leave it out.")
    return way, options


def _flag(option: str) -> str:
    return f"--{option.replace('_', '-')}"


def _rename(
    root: Path, categories: Sequence[Category], way: str, options: dict[str, Any], store: Store
) -> tuple[tuple[Category, ...], list[str]]:
    """Work the names out."""
    if way == RESET:
        return tuple(unnamed(category) for category in categories), []
    if way == CSV:
        names = read_sheet(Path(options[CSV]), categories)
        return tuple(by_hand(c, names[c.id]) if c.id in names else c for c in categories), []
    failures: dict[str, str] = {}
    if way == VOCABULARY:
        choices, failures = by_vocabulary(root, categories, Look(**options), store=store)
    else:
        where = {key: options.get(key) for key in ("data", "split", "space")}
        unique = bool(options.get("unique"))
        choices = by_truth(root, unique=unique, progress=store.report, **where)
    renamed = by_choice(categories, choices, way=way)
    return renamed, [*_left_over(renamed), *_unread(failures)]


def by_hand(category: Category, name: str) -> Category:
    """Give one category the name that somebody typed; an unchanged one keeps where it is from."""
    if name == category.name:
        return category
    before = unnamed(category)
    if name == before.name:
        return before
    return replace(category, name=name, naming=Naming("csv", before.name))


def by_choice(
    categories: Sequence[Category], choices: Sequence[Choice | None], *, way: str
) -> tuple[Category, ...]:
    """Give categories the names that were chosen, all of them different.

    Args:
        categories: index = id.
        choices: one for each; None gives the name from before anybody named it.
        way: "vocabulary" or "truth".

    Returns:
        The categories; of those with one name the largest has it as it is.
    """
    plain = [unnamed(category) for category in categories]
    words = {k: choice.word for k, choice in enumerate(choices) if choice is not None}
    order = sorted(words, key=lambda k: (-plain[k].pixel_share, k))
    taken = {category.name for category in plain if category.id not in words}
    names = distinct(words, order, taken=taken)
    return tuple(
        category
        if choice is None
        else replace(category, name=names[k], naming=_naming(choice, way, category.name))
        for k, (category, choice) in enumerate(zip(plain, choices, strict=True))
    )


def _naming(choice: Choice, way: str, was: str) -> Naming:
    return Naming(
        way,
        was,
        round(choice.score, DECIMALS),
        None if choice.margin is None else round(choice.margin, DECIMALS),
        tuple((word, round(score, DECIMALS)) for word, score in choice.alternatives),
    )


def _left_over(categories: Sequence[Category]) -> list[str]:
    """Say which categories got no name."""
    left = [category.name for category in categories if category.naming is None]
    if not left:
        return []
    return [f"no name was found for {_some(left)}"]


def _unread(failures: Mapping[str, str]) -> list[str]:
    if not failures:
        return []
    reasons = [f"{name}: {why}" for name, why in failures.items()]
    return [f"could not be looked at: {_some(reasons)}"]


def _some(words: Sequence[str]) -> str:
    more = f" and {len(words) - SHOWN} more" if len(words) > SHOWN else ""
    return ", ".join(words[:SHOWN]) + more
