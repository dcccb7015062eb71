"""The same predictions under each rule: how much of a score is the way of counting."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, get_args, get_type_hints

from zerolabel.errors import DataError
from zerolabel.evaluation.confusion import ABSENT, Scores, floor
from zerolabel.evaluation.protocol import Protocol
from zerolabel.evaluation.protocols import score, scored_classes
from zerolabel.ops.matching import MATCHINGS, Centres, Counts

RULES = ("matching", "absent", "ignore", "background", "match_on", "geometry")


@dataclass(frozen=True, eq=False)
class Row:
    """One protocol with one rule changed.

    Attributes:
        rule: the field of `Protocol` that was changed; "protocol" in the first row.
        value: what it was changed to; the protocol's id in the first row.
        classes: C, how many classes are scored.
        scores: under these rules.
        floor: of one category everywhere.
    """

    rule: str
    value: str
    classes: int
    scores: Scores
    floor: Scores


def explain(
    counts: Mapping[str, Counts],
    protocol: Protocol,
    *,
    background: bool,
    sources: Mapping[str, Counts] | None = None,
    centres: Centres | None = None,
) -> list[Row]:
    """Score the same predictions under a protocol, and under each other rule in turn.

    Args:
        counts: geometry -> int64 (C, K + 1), all classes; the protocol's own geometry and others.
        protocol: one that judges masks.
        background: whether class 0 is the background.
        sources: geometry -> counts on another split that clusters can be matched on.
        centres: (K, D) of the clusters; without them the matching "nearest" is left out.

    Returns:
        The protocol's own row, then one for each changed rule; what cannot be scored is left out.
    """
    rows = []
    for rule, value, rules in _variants(protocol, counts, background, sources is not None):
        if rules.matching == "nearest" and centres is None:
            continue
        held = counts[rules.geometry]
        kept = scored_classes(held, rules)
        if rules.matching == "identity" and not _named(kept, protocol, rule):
            continue
        source = sources[rules.geometry] if sources and rules.match_on == "train" else None
        try:
            found = score(held, rules, source=source, centres=centres)
        except DataError:  # the rule leaves no pixel
            continue
        rows.append(Row(rule, value, len(kept), found, floor(kept, absent=rules.absent)))
    return rows


def _named(kept: Counts, protocol: Protocol, rule: str) -> bool:
    """Say whether category k can be class k after one rule of a protocol was changed."""
    if protocol.matching == "identity":  # as it says; without the background ids are other classes
        return rule != "background"
    return bool(kept.shape[1] - 1 == len(kept))


def _variants(
    protocol: Protocol, counts: Mapping[str, Counts], background: bool, trained: bool
) -> Iterator[tuple[str, str, Protocol]]:
    """Yield the protocol, and copies of it with one rule changed."""
    yield "protocol", protocol.id, protocol
    kinds: dict[str, Any] = get_type_hints(Protocol)
    choices: dict[str, tuple[str, ...]] = {
        rule: get_args(kinds[rule]) for rule in ("ignore", "background", "match_on")
    }
    choices |= {"matching": tuple(MATCHINGS), "absent": tuple(ABSENT), "geometry": tuple(counts)}
    if not background:
        del choices["background"]
    if not trained:
        del choices["match_on"]
    for rule in RULES:
        for value in choices.get(rule, ()):
            change: dict[str, Any] = {rule: value}
            if value != getattr(protocol, rule):
                yield rule, value, replace(protocol, **change)
