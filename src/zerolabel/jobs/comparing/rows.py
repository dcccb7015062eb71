"""From evaluation files to the table of a comparison: which runs make a row, which a column."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from zerolabel.jobs.comparing.table import Cell, Column, Row, Score, Table

SHOWN = 3  # settings in a label
FIELDS = ("split", "space", "protocol", "images")  # of a column, said in words if they differ


def column_of(result: Mapping[str, Any]) -> Column:
    """Say what a score may be compared with.

    Args:
        result: the content of an evaluation file.

    Returns:
        The column; scores stand in one if and only if theirs are equal.
    """
    rules = {key: value for key, value in result["protocol"].items() if key != "description"}
    rules["matched_on"] = result.get("matched_on")
    return Column(
        dataset=result["dataset"],
        split=result["split"],
        space=result["space"],
        protocol=rules["id"],
        rules=json.dumps(rules, sort_keys=True),
        images=result["images"],
        data_hash=result["data_hash"],
        classes=tuple(entry["name"] for entry in result["per_class"]),
    )


@dataclass
class _Group:
    """Runs of one row, as they are found."""

    facts: dict[str, str]
    scores: list[Score] = field(default_factory=list)

    def takes(self, own: Sequence[Score]) -> bool:
        """Whether no seed would stand twice in a column."""
        taken = {(score.column, score.seed) for score in self.scores}
        return taken.isdisjoint((score.column, score.seed) for score in own)


def tabulate(scores: Sequence[Score], *, against: str) -> Table:
    """Put runs that differ in nothing but their seed into one row.

    The number of categories counts as equal where it is that of the classes, so that one method
    has one row over data sets of different size. Masks made elsewhere have a row for each run.

    Args:
        scores: in the order of the runs.
        against: "first" or "best", what differences are taken to.

    Returns:
        The table; rows and columns in the order in which they first appear.
    """
    runs: dict[Path, list[Score]] = {}
    for score in scores:
        runs.setdefault(score.run, []).append(score)
    groups: list[_Group] = []
    for own in runs.values():
        facts = _facts(own)
        fitting = (g for g in groups if facts and g.facts == facts and g.takes(own))
        group = next(fitting, None)
        if group is None:
            group = _Group(facts)
            groups.append(group)
        group.scores += own
    rows = [
        Row(label, group.facts, _cells(group.scores))
        for label, group in zip(_labels(groups), groups, strict=True)
    ]
    return Table(tuple(rows), tuple(dict.fromkeys(score.column for score in scores)), against)


def titles(columns: Sequence[Column]) -> dict[Column, str]:
    """Name columns, so that no two have one name."""
    names = {column: column.title for column in columns}
    for more in ("{0.images} images", "list {0.data_hash:.6}"):
        counts = Counter(names.values())
        longer = {column: f"{name}, {more.format(column)}" for column, name in names.items()}
        names = {c: longer[c] if counts[name] > 1 else name for c, name in names.items()}
    return names


def apart(columns: Sequence[Column]) -> list[str]:
    """Say why columns of one data set are not one column."""
    named = titles(columns)
    first: dict[str, Column] = {}
    notes = []
    for column in columns:
        other = first.setdefault(column.dataset, column)
        if other is column:
            continue
        differs = [
            f"{name} {getattr(column, name)} instead of {getattr(other, name)}"
            for name in FIELDS
            if getattr(column, name) != getattr(other, name)
        ]
        if column.protocol == other.protocol and column.rules != other.rules:
            differs.append("other rules under one protocol id")
        if column.data_hash != other.data_hash and column.split == other.split:
            differs.append("another list of images")
        if column.classes != other.classes and column.space == other.space:
            differs.append("other classes")
        notes.append(
            f"{named[column]} cannot be compared with {named[other]}: {', '.join(differs)}"
        )
    return notes


def _facts(scores: Sequence[Score]) -> dict[str, str]:
    """Flatten all that decides a run but its seed and its images; empty if it is not known."""
    made = scores[0].result["run"]
    if made is None:
        return {}
    config = {key: value for key, value in made["config"].items() if key != "seed"}
    if any(config.get("k") == score.result["classes"] for score in scores):
        config["k"] = "C"
    known = {
        key: made[key]
        for key in ("method", "backbone", "weights", "geometry", "refine")
        if key in made
    }
    return {key: _written(value) for key, value in {**known, **config}.items()}


def _written(value: object) -> str:
    return "x".join(map(str, value)) if isinstance(value, list) else str(value)


def _cells(scores: Sequence[Score]) -> dict[Column, Cell]:
    found: dict[Column, list[Score]] = {}
    for score in scores:
        found.setdefault(score.column, []).append(score)
    return {column: Cell(tuple(own)) for column, own in found.items()}


def _labels(groups: Sequence[_Group]) -> list[str]:
    """Name rows by method, backbone and the settings that set them apart from one another."""
    labels = []
    for group in groups:
        if not group.facts:
            labels.append(group.scores[0].run.name)
            continue
        alike = [g.facts for g in groups if g.facts.get("method") == group.facts["method"]]
        differing = [
            f"{key}={value}"
            for key, value in group.facts.items()
            if key not in ("backbone", "weights") and {f.get(key) for f in alike} != {value}
        ]
        more = [f"{len(differing) - SHOWN} more"] if len(differing) > SHOWN else []
        words = " ".join([group.facts["method"], group.facts["backbone"]])
        labels.append(", ".join([words, *differing[:SHOWN], *more]))
    counts = Counter(labels)
    return [
        f"{label} ({group.scores[0].run.name})" if counts[label] > 1 else label
        for label, group in zip(labels, groups, strict=True)
    ]
