"""The command `zerolabel evaluate`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from zerolabel.cli.mask_reports import bias_report, explain_report, mask_report, seeds_report
from zerolabel.cli.options import options, parse_changes, progress_bars
from zerolabel.cli.params import Numbers, Size
from zerolabel.cli.score_reports import OWN, REPORTS
from zerolabel.jobs.scoring.judges import job_of

FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
EXISTING = click.Path(exists=True, path_type=Path)
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
        help="Pixels to encode at.  [no run; default: 480 for jaccard, 512 for those of "
        "MaskContrast, else 224]",
    ),
    click.option(
        "--mass",
        type=float,
        help="Share of the attention to keep.  [jaccard, retrieval, maskcontrast-kmeans; "
        "default: 0.6]",
    ),
    click.option(
        "--saliency",
        type=FOLDER,
        help="PNGs of what is salient, named as the images, instead of the attention.  "
        "[retrieval, maskcontrast-kmeans]",
    ),
    click.option(
        "--seeds", type=int, help="Repetitions.  [probes; default: 3 for linear-probe, else 1]"
    ),
    click.option(
        "--set",
        "changes",
        metavar="NAME=VALUE",
        multiple=True,
        default=None,
        help="Another setting than the published one; repeatable.  [probes]",
    ),
    click.option("--queries", type=EXISTING, help="Images to classify, as DATA.  [knn]"),
    click.option(
        "--k", type=Numbers("10,20"), help="Neighbours that vote.  [knn; default: 10,20,100,200]"
    ),
    click.option(
        "--out",
        type=click.Path(file_okay=False, path_type=Path),
        help="Folder for evaluation-PROTOCOL.json, and for features, to go on with them.  [no run, "
        "or several]",
    ),
)


SEVERAL = {"data", "queries"}  # protocols that take one of these take several places
RUN_ONLY = {"data", "split", "space", "matching_run", "explain", "bias", "out"}
ONE_RUN = {"matching_run", "explain", "bias"}
WITH_RUN = (
    click.option("--data", type=FOLDER, help="Root of a data set with labels.  [needed with RUN]"),
    click.option("--split", help="Split of the data set.  [default: val where there is one]"),
    click.option("--space", help="Label space, e.g. voc20.  [default: the data set's own]"),
    click.option(
        "--matching-run",
        type=FOLDER,
        help="Run of the same model on the split train, to match clusters there.  [full-train]",
    ),
    click.option(
        "--explain", is_flag=True, help="Show what the same masks score under each rule.  [RUN]"
    ),
    click.option(
        "--bias", is_flag=True, help="Measure which classes and places the masks prefer.  [RUN]"
    ),
)


@click.command("evaluate")
@click.argument("run", metavar="RUN|DATA...", nargs=-1, required=True, type=EXISTING)
@click.option("--protocol", default="full", show_default=True, help="How to score; see above.")
@options(WITH_RUN, WITHOUT_RUN)
def evaluate(run: tuple[Path, ...], protocol: str, **asked: Any) -> None:
    """Score the masks of RUN against ground truth, or a backbone on DATA.

    \b
    Protocols of a run, which needs --data:
      full                 every labelled pixel, one to one matching
      full-nobg            background not scored
      full-train           matched on the split train
      datus                misses dropped
      datus-nearest        or given to the nearest cluster that has a class
      datus-majority       every cluster to its most frequent class
      picie-320            PiCIE's middle 320 x 320
      stego-320            STEGO's, without CRF
      stego-320-crf        and with it
      transfgu             squashed to 320 x 320
      maskcontrast         matched by IoU
      classes              classes known by name, nothing matched
      maskclip, reclip     the same without the background
      reco                 classes known by name, on COCO-Stuff
      over-clustering      many clusters to one class, by pixels
      over-clustering-iou  and by IoU

    The numbers are also written to RUN/evaluation-PROTOCOL.json. Several RUNs that differ in their
    seed give mean and standard deviation.

    \b
    Protocol of the regions of a run, or of several with rising K; needs --data:
      bsds                 against what annotators outlined in BSDS500

    \b
    Protocols of a backbone, which need no run; DATA stands in its place:
      jaccard              how well its attention outlines the objects of DATA
      linear-probe         how well a linear layer segments the split val
      maskcontrast-linear  the same as MaskContrast does it
      stego-linear         and as STEGO does it
      stego-cluster        STEGO's prototypes, learned without labels
      dense-knn            every patch classified by its neighbours in the split train
      retrieval            salient parts classified by theirs, as MaskContrast
      maskcontrast-kmeans  salient parts clustered
      knn                  the images of --queries classified by theirs in DATA, one or several
                           labelled .npz packs or folders with one folder per class
    """  # noqa: D301  (\b keeps the lines of a list)
    given = {
        name: value
        for name, value in asked.items()
        if value not in (None, ()) and value is not False
    }
    _check(run, protocol, given)
    given |= _settings(given.pop("changes", ()), OWN.get(protocol, set()))
    if protocol in OWN:
        job, report = job_of(protocol), REPORTS[protocol]
        places: list[Any] = [run if given.keys() & SEVERAL else run[0]]
    else:
        job, report = _masks(run, given.pop("explain", False), given.pop("bias", False))
        places = [run if len(run) > 1 else run[0]]
        given["protocol"] = protocol
    places += [given.pop(option) for option in ("data", "queries") if option in given]
    with progress_bars() as progress:
        result = job(*places, progress=progress, **given)
    click.echo(report(result))


def _settings(texts: tuple[str, ...], options: set[str]) -> dict[str, str]:
    """Read the values of --set, which are no other options."""
    changes = parse_changes(texts)
    for name in changes.keys() & (options | {"data", "protocol", "progress"}):
        raise click.UsageError(f"--set changes settings of the probe; {name} is none of them.")
    return changes


def _masks(
    run: tuple[Path, ...], explain: bool, bias: bool
) -> tuple[Callable[..., dict[str, Any]], Callable[..., str]]:
    """Choose the job that scores masks, and its report."""
    if bias:
        from zerolabel.jobs.scoring.bias import bias as measure

        return measure, bias_report
    if explain:
        from zerolabel.jobs.scoring.explain import explain_score

        return explain_score, explain_report
    if len(run) > 1:
        from zerolabel.jobs.scoring.seeds import evaluate_seeds

        return evaluate_seeds, seeds_report
    from zerolabel.jobs.evaluate import evaluate as score

    return score, mask_report


def _check(run: tuple[Path, ...], protocol: str, given: dict[str, Any]) -> None:
    """Complain about what does not belong together."""
    takes = OWN.get(protocol, RUN_ONLY)
    if "data" in given and "data" not in takes:
        raise click.UsageError(f"--protocol {protocol} takes the data set in the place of RUN.")
    for name in given:
        if name not in takes:
            users = [other for other, own in OWN.items() if name in own] or ["of masks"]
            option = "set" if name == "changes" else name.replace("_", "-")
            raise click.UsageError(f"--{option}: for --protocol {' or '.join(users)} only.")
    for name in ("data", "queries"):
        if name in takes and name not in given:
            raise click.UsageError(f"Missing option '--{name}'.")
    if len(run) > 1 and not takes & SEVERAL:
        raise click.UsageError(f"--protocol {protocol} takes one folder, found {len(run)}.")
    if "queries" not in takes:
        _check_runs(run, protocol, given)


def _check_runs(run: tuple[Path, ...], protocol: str, given: dict[str, Any]) -> None:
    """Complain about what is no folder, and about options for one run or for several."""
    for place in run:
        if not place.is_dir():
            raise click.UsageError(f"--protocol {protocol} takes a folder; {place} is a file.")
    if protocol in OWN:
        return
    if len(run) > 1 and given.keys() & ONE_RUN:
        raise click.UsageError(
            f"--bias, --explain and --matching-run take one RUN, found {len(run)}."
        )
    if "bias" in given and given.keys() & {"explain", "matching_run"}:
        raise click.UsageError("--bias goes with neither --explain nor --matching-run.")
    if len(run) == 1 and "out" in given:
        raise click.UsageError("--out is for several RUNs; one keeps its numbers in itself.")
