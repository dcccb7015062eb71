"""The reports that `zerolabel evaluate` prints, and what each protocol of its own kind takes.

A protocol that judges a backbone or regions, not the masks of a run, has one line in each of `OWN`,
`REPORTS` and `JOBS` of jobs/judges.py.
"""

from __future__ import annotations

from typing import Any

from zerolabel.cli.options import count
from zerolabel.cli.table import format_table

BACKBONE = {"backbone", "weights", "device", "size", "out"}
PROBE = BACKBONE | {"split", "space"}
OWN = {  # what a protocol takes besides the data in the place of RUN, or besides RUNs with --data
    "jaccard": BACKBONE | {"split", "mass"},
    "linear-probe": PROBE | {"seeds"},
    "knn": BACKBONE | {"queries", "k"},
    "maskcontrast-linear": PROBE | {"seeds", "changes"},
    "stego-linear": PROBE - {"size"} | {"seeds", "changes"},
    "stego-cluster": PROBE - {"size"} | {"seeds", "changes"},
    "dense-knn": PROBE | {"seeds", "changes"},
    "retrieval": PROBE | {"saliency", "mass"},
    "maskcontrast-kmeans": PROBE | {"saliency", "mass", "changes"},
    "bsds": {"data", "split", "out"},
}


def _attention_report(result: dict[str, Any]) -> str:
    """Lay out how well attention outlines objects: one line per head, the means."""
    scores, (H, W) = result["scores"], result["size"]
    title = (
        f"protocol jaccard, {result['dataset']} {result['split']}, {result['backbone']} at "
        f"{H}x{W}, {percent(result['mass'])} % of the mass, {scores['objects']} "
        f"{result['objects_are']} in {scores['images']} of {result['images']} images"
    )
    pairs = zip(scores["per_head"], scores["best"], strict=True)
    rows = [[str(i), percent(mean), str(best)] for i, (mean, best) in enumerate(pairs)]
    table = format_table(["head", "Jaccard", "best for"], rows)
    means = (
        f"best head of each object {percent(scores['jaccard'])}   "
        f"the whole image {percent(scores['everything'])}   (percent)"
    )
    return "\n".join([title, "", table, "", means])


def _probe_report(result: dict[str, Any]) -> str:
    """Lay out what a probe reads from features: one line per class, the means over seeds."""
    rows = [
        [entry["name"], *(percent((entry["iou"] or {}).get(key)) for key in ("mean", "std"))]
        for entry in result["per_class"]
    ]
    means = (
        f"mIoU {spread(result['miou'])}   pixel accuracy {spread(result['pixel_accuracy'])}   "
        f"one class everywhere {percent(result['floor'])}   (percent, C = {result['classes']})"
    )
    title = f"{_probe_title(result)}, {count(len(result['seeds']), 'seed')}"
    return "\n".join([title, "", format_table(["class", "IoU", "std"], rows), "", means])


def _retrieval_report(result: dict[str, Any]) -> str:
    """Lay out how salient parts are retrieved: one line per class, the means over two sets."""
    title = f"{_probe_title(result)}, {result['bank_images']} to retrieve from"
    rows = [[entry["name"], percent(entry["iou"])] for entry in result["per_class"]]
    means = [
        f"mIoU {percent(result['miou'])}   pixel accuracy {percent(result['pixel_accuracy'])}   "
        f"one class everywhere {percent(result['floor'])}   (percent, C = {result['classes']})"
    ]
    if result["seven"] is not None:
        names = ", ".join(entry["name"] for entry in result["seven"]["per_class"])
        means.append(f"mIoU {percent(result['seven']['miou'])} over {names}   (percent, C = 7)")
    return "\n".join([title, "", format_table(["class", "IoU"], rows), "", *means])


def _probe_title(result: dict[str, Any]) -> str:
    """Say what was trained on and scored, with what."""
    H, W = result["size"]
    title = f"protocol {result['protocol']['id']}, {result['dataset']}, {result['backbone']}"
    title += f" at {H}x{W}"
    if "train_split" in result:
        use = "neighbours in" if result["protocol"]["matching"] == "neighbours" else "trained on"
        title += f", {use} {count(result['train_images'], 'image')} of {result['train_split']}"
    return f"{title}, scored on {result['images']} of {result['split']}"


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
        + [percent(entry[key]) for key in ("top1", "top5")]
        for entry in result["scores"]
    ]
    table = format_table(["feature", "k", "top-1", "top-5"], rows)
    floor = f"one class everywhere {percent(result['floor'])}   (percent)"
    return "\n".join([title, *notes, "", table, "", floor])


def _regions_report(result: dict[str, Any]) -> str:
    """Lay out how regions agree with annotators: one line per run and reference, ODS and OIS."""
    title = (
        f"protocol bsds, {result['dataset']} {result['split']}, {result['images']} of "
        f"{result['labelled_images']} images, {result['annotators']} annotators with "
        f"{result['annotated_regions']:.1f} regions each"
    )
    measures = {"covering": "covering", "PRI": "pri", "VI": "vi", "F": "f"}
    columns = [*measures.values(), "precision", "recall"]
    named = [(level["run"], level) for level in result["levels"]]
    rows = [
        [name, str(scores.get("clusters", "-")), _decimals(scores.get("regions"), 1)]
        + [_decimals(scores[column]) for column in columns]
        for name, scores in [*named, *result["references"].items()]
    ]
    head = ["", "K", "regions", *measures, "precision", "recall"]
    notes = ["VI in bits, less is better; of the others more. annotators: each against the others."]
    if len(named) > 1:
        found = [[name, result[key]] for name, key in measures.items()]
        best = [
            [name, _decimals(own["ods"]), _decimals(own["ois"]), named[own["level"]][0]]
            for name, own in found
        ]
        notes = [format_table(["", "ODS", "OIS", "ODS is of"], best), "", *notes]
    return "\n".join([title, "", format_table(head, rows), "", *notes])


def _decimals(value: float | None, places: int = 3) -> str:
    return "-" if value is None else f"{value:.{places}f}"


def percent(share: float | None) -> str:
    """Write a share in percent; "-" where there is none."""
    return "-" if share is None else f"{100 * share:.1f}"


def spread(found: dict[str, Any]) -> str:
    """Mean and deviation over seeds in percent."""
    deviation = "" if found["std"] is None else f" +- {percent(found['std'])}"
    return percent(found["mean"]) + deviation


REPORTS = {
    "jaccard": _attention_report,
    "linear-probe": _probe_report,
    "maskcontrast-linear": _probe_report,
    "stego-linear": _probe_report,
    "stego-cluster": _probe_report,
    "dense-knn": _probe_report,
    "maskcontrast-kmeans": _probe_report,
    "retrieval": _retrieval_report,
    "knn": _knn_report,
    "bsds": _regions_report,
}
