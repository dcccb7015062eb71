"""The command `zerolabel evaluate`."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import click

from zerolabel.cli.options import Size, count, options, progress_bars
from zerolabel.cli.table import format_table

FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
EXISTING = click.Path(exists=True, path_type=Path)
BACKBONE = {"backbone", "weights", "device", "size", "out"}
OWN = {  # what a protocol takes that needs no run, besides the data in the place of RUN
    "jaccard": BACKBONE | {"split", "mass"},
    "linear-probe": BACKBONE | {"split", "seeds"},
    "knn": BACKBONE | {"queries", "k"},
}
JOBS = {
    "jaccard": "zerolabel.jobs.jaccard:evaluate_attention",
    "linear-probe": "zerolabel.jobs.probe:evaluate_linear",
    "knn": "zerolabel.jobs.knn:evaluate_knn",
}
WITHOUT_RUN = (
    click.option(
        "--backbone", help="What to score.  [no run; default: dino-vits16 for jaccard, else auto]"
    ),
    click.option(
        "--weights",
        type=click.Path(exists=True, dir_okay=False),
        help="Weights file of the backbone.  [no run]",
    ),
    click.option("--device", help="auto, cpu, cuda or mps.  [no run]"),
    click.option(
        "--size",
        type=Size(),
        help="Pixels to encode at.  [no run; default: 480 for jaccard, else 224]",
    ),
    click.option(
        "--mass", type=float, help="Share of the attention to keep.  [jaccard; default: 0.6]"
    ),
    click.option("--seeds", type=int, help="Layers to train.  [linear-probe; default: 3]"),
    click.option("--queries", type=EXISTING, help="Images to classify, as DATA.  [knn]"),
    click.option("--k", help="Neighbours that vote.  [knn; default: 10,20,100,200]"),
    click.option(
        "--out",
        type=click.Path(file_okay=False, path_type=Path),
        help="Folder for evaluation-PROTOCOL.json, and for features, to go on with them.  [no run]",
    ),
)


@click.command("evaluate")
@click.argument("run", metavar="RUN|DATA...", nargs=-1, required=True, type=EXISTING)
@click.option("--data", type=FOLDER, help="Root of a data set with labels.")
@click.option(
    "--protocol",
    default="full",
    show_default=True,
    help="How to score a run: full, full-nobg (background not scored), datus (misses dropped); or "
    "a backbone: jaccard (its attention), linear-probe (its patches), knn (whole images).",
)
@click.option("--split", help="Split of the data set.  [default: val where there is one]")
@options(WITHOUT_RUN)
def evaluate(run: tuple[Path, ...], protocol: str, **asked: Any) -> None:
    """Score the masks of RUN against ground truth.

    DATA is PASCAL VOC 2012, CamVid, or a folder with `images` and `masks` or `labels` (PNGs of
    class ids) and optionally `classes.txt`. The numbers are also written to
    RUN/evaluation-PROTOCOL.json.

    Three protocols score a backbone; then no run is needed, and DATA stands in its place. jaccard:
    how well its attention outlines the objects of DATA. linear-probe: how well a linear layer on
    its patch tokens segments the split val, trained on the split train. knn: how well nearest
    neighbours in DATA, one or several labelled .npz packs or folders with one folder per class,
    classify the images of --queries.
    """
    given = {name: value for name, value in asked.items() if value is not None}
    _check(run, protocol, given)
    if protocol not in OWN:
        from zerolabel.jobs.evaluate import evaluate as job

        click.echo(_report(job(run[0], protocol=protocol, **given)))
        return
    if "k" in given:
        given["k"] = _numbers(given["k"])
    module, _, name = JOBS[protocol].partition(":")
    places = (run, given.pop("queries")) if protocol == "knn" else (run[0],)
    with progress_bars() as progress:
        result = getattr(import_module(module), name)(*places, progress=progress, **given)
    click.echo(REPORTS[protocol](result))


def _check(run: tuple[Path, ...], protocol: str, given: dict[str, Any]) -> None:
    """Complain about what does not belong together."""
    takes = OWN.get(protocol, {"data", "split"})
    if "data" in given and "data" not in takes:
        raise click.UsageError(f"--protocol {protocol} takes the data set in the place of RUN.")
    for name in given:
        if name not in takes:
            users = [other for other, own in OWN.items() if name in own]
            raise click.UsageError(f"--{name}: for --protocol {' or '.join(users)} only.")
    needed = {"knn": "queries"}.get(protocol, "" if protocol in OWN else "data")
    if needed and needed not in given:
        raise click.UsageError(f"Missing option '--{needed}'.")
    if protocol == "knn":
        return
    if len(run) > 1:
        raise click.UsageError(f"--protocol {protocol} takes one folder, found {len(run)}.")
    if not run[0].is_dir():
        raise click.UsageError(f"--protocol {protocol} takes a folder; {run[0]} is a file.")


def _numbers(text: str) -> tuple[int, ...]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and int(part) for part in parts):
        raise click.BadParameter(f"expected whole numbers such as 10,20, found {text!r}.")
    return tuple(map(int, parts))


def _attention_report(result: dict[str, Any]) -> str:
    """Lay out how well attention outlines objects: one line per head, the means."""
    scores, (H, W) = result["scores"], result["size"]
    title = (
        f"protocol jaccard, {result['dataset']} {result['split']}, {result['backbone']} at "
        f"{H}x{W}, {_percent(result['mass'])} % of the mass, {scores['objects']} "
        f"{result['objects_are']} in {scores['images']} of {result['images']} images"
    )
    pairs = zip(scores["per_head"], scores["best"], strict=True)
    rows = [[str(i), _percent(mean), str(best)] for i, (mean, best) in enumerate(pairs)]
    table = format_table(["head", "Jaccard", "best for"], rows)
    means = (
        f"best head of each object {_percent(scores['jaccard'])}   "
        f"the whole image {_percent(scores['everything'])}   (percent)"
    )
    return "\n".join([title, "", table, "", means])


def _linear_report(result: dict[str, Any]) -> str:
    """Lay out what a linear layer reads from patches: one line per class, the means."""
    H, W = result["size"]
    seeds = count(len(result["seeds"]), "seed")
    title = (
        f"protocol linear-probe, {result['dataset']}, {result['backbone']} at {H}x{W}, trained on "
        f"{count(result['train_images'], 'image')} of {result['train_split']}, scored on "
        f"{result['images']} of {result['split']}, {seeds}"
    )
    rows = [
        [entry["name"], *(_percent((entry["iou"] or {}).get(key)) for key in ("mean", "std"))]
        for entry in result["per_class"]
    ]
    means = (
        f"mIoU {_spread(result['miou'])}   pixel accuracy {_spread(result['pixel_accuracy'])}   "
        f"one class everywhere {_percent(result['floor'])}   (percent, C = {result['classes']})"
    )
    return "\n".join([title, "", format_table(["class", "IoU", "std"], rows), "", means])


def _knn_report(result: dict[str, Any]) -> str:
    """Lay out how well neighbours classify: one line per k and feature."""
    title = (
        f"protocol knn, {result['backbone']} at {result['size'][0]}x{result['size'][1]}, "
        f"{result['images']} queries of {result['queries']}, {result['bank_images']} in the bank "
        f"{result['bank']}, C = {result['classes']}"
    )
    notes = [
        f"note: {result[name]} of the queries {words}"
        for name, words in (
            ("shared", "are in the bank too, which flatters"),
            ("unknown", "are of classes that the bank does not hold, and count as missed"),
        )
        if result[name]
    ]
    rows = [
        [entry["feature"].replace("_", " "), str(entry["k"])]
        + [_percent(entry[key]) for key in ("top1", "top5")]
        for entry in result["scores"]
    ]
    table = format_table(["feature", "k", "top-1", "top-5"], rows)
    floor = f"one class everywhere {_percent(result['floor'])}   (percent)"
    return "\n".join([title, *notes, "", table, "", floor])


REPORTS = {"jaccard": _attention_report, "linear-probe": _linear_report, "knn": _knn_report}


def _report(result: dict[str, Any]) -> str:
    """Lay a result out: what was scored, one line per class, the means."""
    title = (
        f"protocol {result['protocol']['id']}, {result['dataset']} {result['split']}, "
        f"{result['images']} of {result['labelled_images']} images, "
        f"K = {result['clusters']}, C = {result['classes']}"
    )
    rows = [
        [
            entry["name"],
            *(_percent(entry[key]) for key in ("iou", "accuracy", "f1")),
            ", ".join(map(str, entry["clusters"])) or "-",
        ]
        for entry in result["per_class"]
    ]
    table = format_table(["class", "IoU", "acc", "F1", "clusters"], rows)
    means = "   ".join(
        f"{name} {_percent(result[key])}"
        for name, key in (
            ("mIoU", "miou"),
            ("pixel accuracy", "pixel_accuracy"),
            ("mean accuracy", "mean_accuracy"),
            ("mF1", "mean_f1"),
        )
    )
    lines = [title, *_missing(result["missing"]), "", table, "", f"{means}   (percent)"]
    return "\n".join(lines)


def _missing(ids: list[str]) -> list[str]:
    """Name the labelled images that the run has no mask for, a few of them."""
    if not ids:
        return []
    more = f" and {len(ids) - 5} more" if len(ids) > 5 else ""
    return [f"not scored, for want of a mask: {', '.join(ids[:5])}{more}"]


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f}"


def _spread(found: dict[str, Any]) -> str:
    """Mean and deviation over seeds in percent."""
    deviation = "" if found["std"] is None else f" +- {_percent(found['std'])}"
    return _percent(found["mean"]) + deviation
