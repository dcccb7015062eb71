"""Score runs that differ in their seed only, and say how far the scores spread."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from zerolabel.errors import DataError, UsageError
from zerolabel.evaluation.spread import per_seed
from zerolabel.jobs.evaluate import evaluate
from zerolabel.store import Progress, write_json

SCORES = ("miou", "pixel_accuracy", "mean_accuracy", "mean_f1")


def evaluate_seeds(
    runs: Sequence[str | Path],
    data: str | Path,
    *,
    protocol: str = "full",
    split: str | None = None,
    space: str | None = None,
    out: str | Path | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Score several runs under one protocol, with the mean and standard deviation of each score.

    Every run keeps its own result, as `evaluate` writes it.

    Args:
        runs: two or more run directories that differ in their seed.
        data: root of a labelled data set.
        protocol: a key of `PROTOCOLS` that judges masks.
        split: a split of the data set; the default is "val" where there is one.
        space: a label space of the data set, or None for its default.
        out: folder that takes `evaluation-<protocol>.json` with the means; None writes none.
        progress: called with (work, items done, items in all).

    Returns:
        What was scored, as in `evaluate`; `seeds`, None where a run does not tell; `runs` with the
        scores of each; and for every score its mean and std (of a sample, n - 1).

    Raises:
        UsageError: the runs differ in more than the seed, or have the same one.
        DataError: they do not have masks of the same images.
        ZerolabelError: as `evaluate`.
    """
    results = [
        evaluate(run, data, protocol=protocol, split=split, space=space, progress=progress)
        for run in runs
    ]
    _check(runs, results)
    first = results[0]
    kept = ("protocol", "dataset", "space", "split", "data_root", "images", "labelled_images")
    summary = {key: first[key] for key in (*kept, "missing", "data_hash", "masks", "classes")}
    summary["clusters"] = [result["clusters"] for result in results]
    summary["seeds"] = [_made(result).get("seed") for result in results]
    summary["runs"] = [
        {"run": str(run), **{key: result[key] for key in SCORES}}
        for run, result in zip(runs, results, strict=True)
    ]
    for key in SCORES:
        summary[key] = per_seed(result[key] for result in results)
    summary["floor"] = first["floor"]
    if out is not None:
        write_json(Path(out) / f"evaluation-{protocol}.json", summary)
    return summary


def _check(runs: Sequence[str | Path], results: Sequence[dict[str, Any]]) -> None:
    """Refuse means over what is not the same apart from the seed."""
    first = results[0]
    for run, result in zip(runs[1:], results[1:], strict=True):
        if result["data_hash"] != first["data_hash"]:
            raise DataError(
                f"{runs[0]} and {run} have masks of different images: expected one list, found "
                f"{first['images']} and {result['images']} of {first['labelled_images']}. A mean "
                "needs the same images; segment them all with each seed."
            )
        differs = _differences(_made(first), _made(result))
        if differs:
            raise UsageError(
                f"{runs[0]} and {run} differ in {', '.join(differs)}. A mean over seeds needs runs "
                "that differ in the seed only; evaluate other runs one by one."
            )
    seeds = [_made(result).get("seed") for result in results]
    known = [seed for seed in seeds if seed is not None]
    if len(set(known)) < len(known):
        raise UsageError(
            f"The runs have the seeds {', '.join(map(str, seeds))}. Expected a different one for "
            "each: two runs of one seed say nothing about the spread."
        )


def _made(result: dict[str, Any]) -> dict[str, Any]:
    """How a run was made; empty if it does not tell."""
    return result["run"] or {}


def _differences(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """Names of what differs, apart from the seed; nothing where one does not tell."""
    if not one or not other:
        return []
    both = ({**made, **made["config"]} for made in (one, other))
    ours, theirs = ({k: v for k, v in made.items() if k not in ("config", "seed")} for made in both)
    return [k for k in sorted({*ours, *theirs}) if ours.get(k) != theirs.get(k)]
