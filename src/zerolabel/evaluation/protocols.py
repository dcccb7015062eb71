"""Named evaluation procedures: two numbers may be compared only if they share a protocol."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from zerolabel.errors import UsageError
from zerolabel.evaluation.backbone_protocols import BACKBONES
from zerolabel.evaluation.confusion import Scores, scores
from zerolabel.evaluation.mask_protocols import MASKS
from zerolabel.evaluation.protocol import Protocol
from zerolabel.evaluation.regions import BSDS
from zerolabel.ops.matching import Centres, Counts

BACKGROUND = "background"  # what class 0 is called in a label space that has one

PROTOCOLS: dict[str, Protocol] = {rules.id: rules for rules in (*MASKS, *BACKBONES, BSDS)}


def settle(protocol: Protocol, classes: Sequence[str]) -> Protocol:
    """Fit a protocol to the classes of a data set.

    Args:
        protocol: one that judges masks.
        classes: names, index = id.

    Returns:
        The protocol; where named classes have no background, there is none to leave out.

    Raises:
        UsageError: it leaves out the background, and class 0 is something else.
    """
    if protocol.background == "scored" or classes[0] == BACKGROUND:
        return protocol
    if protocol.matching == "identity":  # as on Cityscapes
        return replace(protocol, background="scored")
    raise UsageError(
        f"Protocol {protocol.id} leaves out the background: expected a data set whose class 0 is "
        f"{BACKGROUND}, found {classes[0]!r}. Use the protocol full."
    )


def score(
    counts: Counts,
    protocol: Protocol,
    *,
    source: Counts | None = None,
    centres: Centres | None = None,
) -> Scores:
    """Score a confusion matrix under a protocol.

    Args:
        counts: int64 (C, K + 1), all classes of the data set, last column: no cluster.
        protocol: the procedure.
        source: int64 (C, K + 1), what clusters are matched on; None stands for `counts`.
        centres: (K, D), the centres of the clusters, for the matching "nearest".

    Returns:
        Scores whose entry i, and whose match i, is class `i + protocol.first_class`.

    Raises:
        DataError: no pixel is left to score.
        UsageError: the protocol leaves no class, does not judge masks, or needs what is not given.
    """
    kept = scored_classes(counts, protocol)
    C, K = len(kept), kept.shape[1] - 1
    # Fewer are classes at the end that nothing was named after; without the background, whose place
    # the next class takes, fewer may be categories of another list.
    if protocol.matching == "identity" and (K > C or (K < C and protocol.first_class)):
        raise UsageError(
            f"Category k is class k in protocol {protocol.id}: expected {C} categories, one for "
            f"each class that is scored, found {K}. Use a protocol that matches clusters."
        )
    return scores(
        kept,
        matching=protocol.matching,
        absent=protocol.absent,
        ignore=protocol.ignore,
        source=None if source is None else scored_classes(source, protocol),
        centres=centres,
    )


def scored_classes(counts: Counts, protocol: Protocol) -> Counts:
    """Leave the rows of the classes that a protocol of masks scores.

    Raises:
        UsageError: none is left, or the protocol does not judge masks.
    """
    if protocol.judges != "masks":
        raise UsageError(f"Protocol {protocol.id} judges {protocol.judges}, not masks.")
    kept = counts[protocol.first_class :]
    if not len(kept):
        raise UsageError(
            f"Protocol {protocol.id} ignores class 0, and there is no other: expected 2 classes or "
            "more. Use the protocol full."
        )
    return kept
