"""The masks of a run, counted beside ground truth: all that any of its scores needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zerolabel.data.benchmarks import Dataset
from zerolabel.errors import StoreError, UsageError, unknown_name
from zerolabel.evaluation.protocol import Protocol
from zerolabel.evaluation.protocols import PROTOCOLS, settle
from zerolabel.jobs.scoring.facts import check_suits, read_facts
from zerolabel.jobs.scoring.labelled import facts, open_labelled, result_name
from zerolabel.jobs.scoring.masks import Counted, count_masks, find_masks, read_categories
from zerolabel.store import Progress, read_json

TRAIN = "train"  # the split to match on where a protocol says so


@dataclass(frozen=True)
class Scored:
    """The masks of a run, counted beside the ground truth of a split.

    Attributes:
        rules: the protocol, settled for the classes.
        dataset: the ground truth, labelled samples only.
        names: of the K categories.
        result: what was scored, see `evaluate`.
        found: counts by geometry.
        sources: counts that clusters are matched on, by geometry; None stands for `found`.
    """

    rules: Protocol
    dataset: Dataset
    names: list[str]
    result: dict[str, Any]
    found: dict[str, Counted]
    sources: dict[str, Counted] | None

    @property
    def name(self) -> str:
        """What a result is called: its protocol, and the label space if it is not the default."""
        return result_name(self.dataset, self.rules)


def find_protocol(name: str) -> Protocol:
    """Look a protocol of masks up by its name.

    Raises:
        UsageError: there is none of that name, or it judges something else.
    """
    if name not in PROTOCOLS:
        raise unknown_name("protocol", name, PROTOCOLS)
    rules = PROTOCOLS[name]
    if rules.judges == "masks":
        return rules
    if rules.judges == "regions":
        other, words = "the regions of a run", f"RUN --data DATA --protocol {name}"
    else:
        other = f"the {rules.judges} of a backbone"
        words = f"DATA --protocol {name} --backbone NAME"
    queries = ", with --queries QUERIES" if name == "knn" else ""
    raise UsageError(
        f"Protocol {name} judges {other}, not the masks of a run. Use `zerolabel evaluate {words}`"
        f"{queries}."
    )


def count(
    run: str | Path,
    data: str | Path,
    rules: Protocol,
    *,
    split: str | None,
    space: str | None,
    others: Sequence[str] = (),
    matching_run: str | Path | None = None,
    progress: Progress | None = None,
) -> Scored:
    """Count the masks of a run beside ground truth, in one pass.

    Args:
        run: as in `evaluate`, and so the arguments that are not named here.
        data: root of the data set.
        rules: the protocol.
        split: of the data set.
        space: label space.
        others: geometries to look through besides the protocol's.
        matching_run: a run on the split "train".
        progress: called with (work, items done, items in all).

    Returns:
        The counts, and what was counted.

    Raises:
        ZerolabelError: as `evaluate`.
    """
    run, data = Path(run), Path(data)
    names, made = read_categories(run / "categories.json"), read_facts(run)
    dataset = open_labelled(data, split, space=space)
    settled = settle(rules, dataset.classes)
    check_suits(made, rules)
    train = None
    if matching_run is not None or rules.match_on == TRAIN:
        train = _open_train(run, matching_run, data, dataset)
    geometry, sources = rules.geometry, None

    def counted(place: Path, part: Dataset) -> tuple[dict[str, Counted], dict[str, Any]]:
        masks = find_masks(place / "masks", part)
        found = count_masks(
            part, masks, len(names), geometry=geometry, others=others, progress=progress
        )
        return found, facts(part, rules, masks)

    found, result = counted(run, dataset)
    result["data_root"] = str(data.resolve())
    result["masks"] = "cropped afterwards" if found[geometry].cropped else "as made"
    result["run"] = made
    if train is not None and matching_run is not None:
        check_suits(read_facts(Path(matching_run)), rules)
        sources, other = counted(Path(matching_run), train)
        result["matched_on"] = {key: other[key] for key in ("split", "images", "data_hash")}
    return Scored(settled, dataset, names, result, found, sources)


def _open_train(
    run: Path, matching_run: str | Path | None, data: Path, dataset: Dataset
) -> Dataset:
    """Open the split that clusters are matched on, and check that the run on it is of one model."""
    how = f"Make it with `zerolabel predict {run} {data} --split {TRAIN} --out RUN_TRAIN`."
    if matching_run is None:
        raise UsageError(
            f"The protocol matches clusters on the split {TRAIN}: expected --matching-run, a run "
            f"of the same model there. {how}"
        )
    if dataset.split == TRAIN:
        raise UsageError(f"The split {TRAIN} is the one to match on. Score another with --split.")
    other = Path(matching_run)
    names = [read_categories(place / "categories.json") for place in (run, other)]
    tensors = [_tensors(place) for place in (run, other)]
    # one model may have been named since: its tensors tell, its names only where it has none
    same = names[0] == names[1] if None in tensors else tensors[0] == tensors[1]
    if not same or len(names[0]) != len(names[1]):
        raise UsageError(
            f"{other} is not of the same model as {run}: expected its {len(names[0])} categories, "
            f"found {len(names[1])} of another fit. {how}"
        )
    return open_labelled(data, TRAIN, space=dataset.space)


def _tensors(run: Path) -> str | None:
    """The hash of a run's model, where it has one."""
    try:
        return str(read_json(run / "model.json")["tensors"])
    except (StoreError, KeyError, TypeError):
        return None
