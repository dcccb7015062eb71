"""Find the scores of runs: what evaluation files say, and what is missing computed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from zerolabel.data.spaces import SPACES
from zerolabel.errors import DataError, ZerolabelError
from zerolabel.jobs.comparing.rows import column_of
from zerolabel.jobs.comparing.table import Score
from zerolabel.jobs.evaluate import evaluate
from zerolabel.jobs.scoring.labelled import open_labelled
from zerolabel.store import Progress, read_json

NEEDED = {
    *("protocol", "dataset", "split", "space", "data_root", "images", "data_hash", "missing"),
    *(
        "clusters",
        "classes",
        "miou",
        "pixel_accuracy",
        "per_class",
        "matching",
        "counts",
        "run",
        "floor",
    ),
}
Way = tuple[str, str, str]  # of scoring: protocol, split, label space


@dataclass(frozen=True)
class Wanted:
    """Which scores to show; None stands for all of them, and for the default where one is made."""

    protocol: str | None = None
    split: str | None = None
    space: str | None = None

    def fits(self, result: dict[str, Any]) -> bool:
        """Whether a score is one of them."""
        asked, found = (self.protocol, self.split, self.space), _way(result)
        return all(a is None or a == b for a, b in zip(asked, found, strict=True))


@dataclass
class Found:
    """Scores in the order of the runs, what could not be used, and why."""

    scores: list[Score] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def find_scores(
    runs: Sequence[Path],
    roots: Sequence[Path] = (),
    *,
    wanted: Wanted,
    progress: Progress | None = None,
) -> Found:
    """Read the evaluation files of runs, and fill the gaps on the data sets that are given.

    Args:
        runs: run directories, each once.
        roots: roots of labelled data sets. On each, every run is scored in all ways in which one of
            the runs already is, or that were asked for, or else by the protocol full.
        wanted: which scores to show.
        progress: called with (work, items done, items in all).

    Returns:
        The scores; a run that a data set has no masks for has a note instead.

    Raises:
        DataError: no run has a score.
        ZerolabelError: every attempt at one failed; the first reason.
    """
    notes: list[str] = []
    held = {run: _read(run, notes) for run in runs}
    errors: list[ZerolabelError] = []
    for root in roots:
        on_it = [r for own in held.values() for r in own if lies_in(r, root) and wanted.fits(r)]
        ways = list(dict.fromkeys(map(_way, on_it))) or [_asked(root, wanted)]
        failed: dict[str, list[str]] = {}  # reason -> runs
        for run in runs:
            known = [_way(result) for result in held[run] if lies_in(result, root)]
            for way in ways:
                if way not in known:
                    try:
                        held[run].append(_score(run, root, way, progress))
                    except ZerolabelError as error:
                        errors.append(error)
                        why = str(error).replace(str(run), "RUN")
                        failed.setdefault(why, []).append(str(run))
        notes += [f"no score on {root} for {', '.join(own)}: {why}" for why, own in failed.items()]
    found = Found(notes=notes)
    for run, own in held.items():
        shown = [Score(run, column_of(result), result) for result in own if wanted.fits(result)]
        found.scores += shown
        found.notes += [] if shown else [f"{run} has no score to show"]
    if not found.scores:
        raise errors[0] if errors else _nothing(runs, wanted)
    return found


def _read(run: Path, notes: list[str]) -> list[dict[str, Any]]:
    """Read the evaluation files of a run that judge its masks."""
    results = []
    for path in sorted(run.glob("evaluation-*.json")):
        result = read_json(path)
        if not isinstance(result, dict) or not isinstance(result.get("protocol"), dict):
            notes.append(f"{path} was not written by `zerolabel evaluate` and is left out")
        elif result["protocol"].get("judges") != "masks":
            notes.append(
                f"{path} judges {result['protocol'].get('judges')}, not masks, and is left out"
            )
        elif missing := NEEDED - result.keys():
            notes.append(
                f"{path} is not of one run, or of another version: it lacks "
                f"{', '.join(sorted(missing))} and is left out; evaluate the run again"
            )
        else:
            results.append(result)
    return results


def _asked(root: Path, wanted: Wanted) -> Way:
    """Complete what was asked for by the defaults of a data set."""
    dataset = open_labelled(root, wanted.split, space=wanted.space)
    return wanted.protocol or "full", dataset.split, dataset.space


def _score(run: Path, root: Path, way: Way, progress: Progress | None) -> dict[str, Any]:
    protocol, split, name = way
    space = label_space(name)
    return evaluate(run, root, protocol=protocol, split=split, space=space, progress=progress)


def label_space(name: str) -> str | None:
    """Return the name of a published label space; that of a plain folder has no other name."""
    return name if name in SPACES else None


def _way(result: dict[str, Any]) -> Way:
    return result["protocol"]["id"], result["split"], result["space"]


def lies_in(result: Mapping[str, Any], root: Path) -> bool:
    """Whether a score was made on the data set of a root."""
    return Path(result["data_root"]).resolve() == root.resolve()


def _nothing(runs: Sequence[Path], wanted: Wanted) -> DataError:
    asked = [f"{name} {value}" for name, value in vars(wanted).items() if value is not None]
    kind = f" with {', '.join(asked)}" if asked else ""
    return DataError(
        f"There is no score{kind} in {', '.join(map(str, runs))}. Expected an evaluation-*.json in "
        "a run, as `zerolabel evaluate RUN --data ROOT` writes it; or give --data ROOT here."
    )
