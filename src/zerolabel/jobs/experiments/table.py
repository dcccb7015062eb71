"""The table of an experiment: a row per setting, mean and deviation over seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from zerolabel.evaluation.published import read_published
from zerolabel.evaluation.spread import Spread, spread
from zerolabel.jobs.experiments.cells import Cell, Experiment, Outcome
from zerolabel.methods import METHODS

PREFERENCES = ("class_preference", "space_preference")  # see `jobs.scoring.bias`
MEASURES = {  # as `evaluation/published.csv` calls them -> where an evaluation has it
    "miou": "miou",
    "pixel_accuracy": "pixel_accuracy",
    "mean_accuracy": "mean_accuracy",
    "mf1": "mean_f1",
    "valid_share": "segments.valid_share",
    "jaccard": "scores.jaccard",
    "top1": "scores",
    "covering": "covering.ods",
    "pri": "pri.ods",
    "vi": "vi.ods",
    "f": "f.ods",
    **{name: f"{name}.score" for name in PREFERENCES},
}
AS_MEASURED = ("vi", *PREFERENCES)  # all others are shares of 1, shown in percent
DIGITS = dict.fromkeys(PREFERENCES, 2)  # after the point; of all others one
TITLES = {
    "fitted_on": "fitted on",
    "miou": "mIoU",
    "pixel_accuracy": "pixel accuracy",
    "mf1": "mF1",
    "valid_share": "valid segments",
    "top1": "top-1",
    "pri": "PRI",
    "vi": "VI (bits)",
    "f": "boundary F",
    "class_preference": "class preference (-1..1)",
    "space_preference": "space preference (mIoU per half diagonal)",
}
KNN = ("cls", 20)


@dataclass(frozen=True)
class Row:
    """Cells that differ in their seed alone.

    Attributes:
        cell: the first of them.
        facts: column -> words.
        scores: measure -> its spread over the seeds, percent but for `AS_MEASURED`.
        published: measure -> what a paper printed for these settings, in the same unit.
        others: whether the paper scored other images, as far as is known.
    """

    cell: Cell
    facts: dict[str, str]
    scores: dict[str, Spread]
    published: dict[str, float]
    others: bool


def rows_of(experiment: Experiment, outcome: Outcome) -> list[Row]:
    """Put the results together, in the order of the experiment."""
    groups: dict[str, list[tuple[Cell, dict[str, Any]]]] = {}
    for cell, result in outcome.results:
        groups.setdefault(cell.row, []).append((cell, result))
    columns = list(dict.fromkeys(key for cell in experiment.cells for key in cell.settings))
    rows = [_row(group, columns, bool(experiment.note)) for group in groups.values()]
    return _with_students(rows, experiment.cells)


def _row(
    group: Sequence[tuple[Cell, dict[str, Any]]], settings: Sequence[str], changed: bool
) -> Row:
    cell, first = group[0]
    clusters = [str(result.get("clusters", cell.settings.get("k", "-"))) for _, result in group]
    k = clusters[0] if len(set(clusters)) == 1 else ", ".join(clusters)
    asked = cell.settings.get("k")
    what = first.get("space") or first.get("dataset", cell.data)
    facts = {
        "data": " ".join(filter(None, (what, first.get("split"), f"({first['images']})"))),
        "fitted_on": cell.train or "-",
        "method": cell.method or "-",
        "preset": cell.preset if cell.method in METHODS else "-",
        "backbone": cell.backbone or "-",
        "geometry": cell.geometry,
        **{key: typed(cell.settings.get(key)) for key in settings if key != "k"},
        "protocol": cell.protocol,
        "K": f"{asked}: {k}" if isinstance(asked, str) else k,
        "C": str(first.get("classes", "-")),
    }
    found: dict[str, list[float]] = {}
    for _, result in group:
        for name, values in measures(result).items():
            found.setdefault(name, []).extend(values)
    facts["seeds"] = str(max((len(values) for values in found.values()), default=0))
    scores = {name: spread(values) for name, values in found.items()}
    expected = cell.quote.images if cell.quote else None
    others = changed or expected not in (None, first["images"])
    return Row(cell, facts, scores, _published(cell, first.get("space", "")), others)


def _with_students(rows: list[Row], cells: Sequence[Cell]) -> list[Row]:
    """Say by whom masks were refined, where any were; other tables stay as they are."""
    if all(cell.student is None for cell in cells):
        return rows
    names = list(dict.fromkeys(key for cell in cells for key in cell.student_settings))
    found = []
    for row in rows:
        own = {f"student {key}": typed(row.cell.student_settings.get(key)) for key in names}
        facts = {"data": row.facts["data"], "student": row.cell.student or "-", **own}
        found.append(replace(row, facts=facts | row.facts))
    return found


def measures(result: Mapping[str, Any]) -> dict[str, list[float]]:
    """Read what an evaluation measured: one value, or one for each seed that it had itself.

    Args:
        result: the content of an evaluation.

    Returns:
        Values by the names of `MEASURES`, in percent, or as measured (bits, preferences).
    """
    found = {}
    for name, path in MEASURES.items():
        value: Any = result
        for key in path.split("."):
            value = value.get(key) if isinstance(value, Mapping) else None
        if isinstance(value, Mapping):
            value = value.get("per_seed")
        if name == "top1" and isinstance(value, list):
            value = _as_dino(value)
        if isinstance(value, float | list):
            unit = 1 if name in AS_MEASURED else 100
            found[name] = [unit * x for x in (value if isinstance(value, list) else [value])]
    return found


def _as_dino(scores: Sequence[Mapping[str, Any]]) -> float:
    """Of the scores of protocol knn the one that DINO prints, or the last where it is not there."""
    top = [entry["top1"] for entry in scores if (entry["feature"], entry["k"]) == KNN]
    return float(top[0] if top else scores[-1]["top1"])


def _published(cell: Cell, space: str) -> dict[str, float]:
    """What the paper that a cell stands for has printed."""
    if cell.quote is None:
        return {}
    quote = cell.quote
    asked = (quote.paper, quote.table, quote.method, quote.backbone, cell.data, cell.protocol)
    return {
        entry.metric: entry.value
        for entry in read_published()
        if entry.space in ("", space)
        and asked
        == (entry.paper, entry.table, entry.method, entry.backbone, entry.dataset, entry.protocol)
    }


def typed(value: Any) -> str:
    """Write a setting as it is typed; "-" for none, and 1/6 with six digits."""
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:g}"
    return "x".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def written(score: Spread | None, metric: str = "") -> str:
    """Write a score as "30.7 ± 0.8"; "-" for none."""
    if score is None:
        return "-"
    digits = DIGITS.get(metric, 1)
    return f"{score.mean:.{digits}f}" + ("" if score.std is None else f" ± {score.std:.{digits}f}")


def layout(experiment: Experiment, rows: Sequence[Row]) -> tuple[str, list[str], list[list[str]]]:
    """Lay the table out for people: what all rows share stands in one line above it.

    Args:
        experiment: what was run.
        rows: one or more.

    Returns:
        That line, the titles of the columns, and the cells row by row.
    """
    shared = {c: v for c, v in rows[0].facts.items() if all(row.facts[c] == v for row in rows)}
    own = [c for c in rows[0].facts if c not in shared] or ["data"]
    words = ", ".join(f"{TITLES.get(c, c)} {v}" for c, v in shared.items() if v != "-")
    header = [TITLES.get(name, name) for name in (*own, *experiment.metrics)]
    lines = [
        [*(row.facts[c] for c in own), *(written(row.scores.get(m), m) for m in experiment.metrics)]
        for row in rows
    ]
    if any(row.published for row in rows):
        header.append("published")
        for line, row in zip(lines, rows, strict=True):
            line.append(_printed(row, experiment.metrics))
    return words, header, lines


def _printed(row: Row, metrics: Sequence[str]) -> str:
    if not row.published:
        return "-"
    values = {name: row.published.get(name) for name in metrics}
    words = " / ".join(
        "-" if value is None else f"{value:.{DIGITS.get(name, 1)}f}"
        for name, value in values.items()
    )
    return f"{words} (other data)" if row.others else words
