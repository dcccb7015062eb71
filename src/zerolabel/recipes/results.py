"""What every method scores on the data sets at hand: the page docs/results.md."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib import resources
from typing import Any

import jinja2

from zerolabel.data.spaces import space
from zerolabel.jobs.experiments.cells import Cell, Experiment
from zerolabel.jobs.experiments.table import Row, written
from zerolabel.recipes import floors

SEEDS = (0, 1, 2)
ROUNDS: tuple[dict[str, Any], ...] = (  # no training, the first round, all of them
    {"train": "initial"},
    {"train": "trained", "epochs": 1},
    {"train": "bootstrapped"},
)
DATA = (  # data set, split, label space, its name in words
    ("camvid", "val", "camvid11", "CamVid val"),
    ("voc", "val", "voc21", "VOC 2012 val"),
    ("suim", "test", "suim8", "SUIM test"),
    ("cocostuff", "val", "coco27", "COCO-Stuff val"),
)
METHODS = {  # on all data, with the backbones without a download that they can use
    "acseg": ("filterbank", "embedded"),
    "kmeans": ("filterbank", "embedded"),
    "datus": ("filterbank", "embedded"),
    "dino-attention": ("embedded",),  # needs attention
}
# What a paper does on one data set only: ACSeg and TransFGU tell the background of VOC by
# attention. TransFGU, which takes longer, runs on the two larger sets, step by step as in its
# table 3.
QUIET = {"prior": True, "background": "quiet"}
OWN: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("voc", "acseg", {"background": "attention"}),
    *(("camvid", "transfgu", rounds) for rounds in ROUNDS),
    *(("voc", "transfgu", {**QUIET, **rounds}) for rounds in ROUNDS),
)
LATER = ("deeplab", "unet", "wnet")  # not measured yet; the page says so
TOLD = ("camvid", "train", "segmenter")  # what labels bring: data set, split to learn from, method
POSITIONS = (0.0, 0.5, 1.0)
ONE, COLOUR = "one category", "k-means on colour"


def results() -> Experiment:
    """Every method on the data sets at hand, without a download, beside floors.

    Command: `make results`, or `zerolabel reproduce results DATA --page docs/results.md`, DATA
    holding CamVid, PASCAL VOC 2012, SUIM and COCO-Stuff in folders of any name. Time: a little more
    than an hour on one core.
    Expected: docs/results.md; nothing of it is published elsewhere.
    """
    return Experiment(
        title="All methods beside floors",
        cells=tuple(_cells()),
        makers={ONE: floors.one_category, COLOUR: floors.colour},
    )


def _cells() -> Iterator[Cell]:
    for data, split, name, _ in DATA:
        start = Cell(data=data, split=split, space=name, backbone="")
        k = len(space(name).classes)
        yield replace(start, method=ONE, settings={"k": 1})
        rows = [replace(start, method=COLOUR, settings={"k": k, "position": w}) for w in POSITIONS]
        rows += [
            replace(start, method=m, preset="protocol", backbone=b, settings={"k": clusters})
            for m, backbones in METHODS.items()
            for b in backbones
            for clusters in (k, "auto")
        ]
        own = replace(start, preset="protocol", backbone="embedded")
        rows += [
            replace(own, method=method, settings={"k": k, **extra})
            for where, method, extra in OWN
            if where == data
        ]
        yield from (replace(row, seed=seed) for row in rows for seed in SEEDS)
        if data == TOLD[0]:  # one seed: it takes longer than all the others
            yield replace(own, train=TOLD[1], method=TOLD[2])


def page(rows: Sequence[Row]) -> str:
    """Write docs/results.md: the text of `results.md.jinja` around the numbers of the runs.

    Args:
        rows: of the experiment.

    Returns:
        Markdown.
    """
    text = resources.files("zerolabel.recipes").joinpath("results.md.jinja").read_text("utf-8")
    blind = [row for row in rows if row.cell.train is None]
    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined, trim_blocks=True, keep_trailing_newline=True
    )
    return environment.from_string(text).render(
        floors=_table([row for row in rows if _floor(row)]),
        filterbank=_table([row for row in blind if row.cell.backbone == "filterbank"]),
        embedded=_table([row for row in blind if row.cell.backbone == "embedded"]),
        told=_table([row for row in rows if row.cell.train is not None]),
        remarks="\n".join(_remarks(blind)),
    )


def _floor(row: Row) -> bool:
    return row.cell.method in (ONE, COLOUR)


def _name(row: Row) -> str:
    if row.cell.method != COLOUR:
        extra = {name: value for name, value in row.cell.settings.items() if name != "k"}
        words = "".join(f", `{name} = {value}`" for name, value in extra.items())
        return row.cell.method if _floor(row) else f"`{row.cell.method}`{words}"
    weight = row.cell.settings["position"]
    return f"{COLOUR}, position at weight {weight:g}" if weight else COLOUR


def _of(rows: Sequence[Row], data: str) -> list[Row]:
    return [row for row in rows if row.cell.data == data]


def _table(rows: Sequence[Row]) -> str:
    """Lay rows out by data set, the best mean of each in bold."""
    lines = [
        "| data (images), classes | method | K | mIoU | pixel accuracy |",
        "|---|---|--:|--:|--:|",
    ]
    for data, _, _, words in DATA:
        own = _of(rows, data)
        best = {name: max(row.scores[name].mean for row in own) for name in SCORES} if own else {}
        for i, row in enumerate(own):
            images = row.facts["data"].rpartition("(")[2].rstrip(")")
            cells = [f"{words} ({images}), {row.facts['C']} classes" if not i else "", _name(row)]
            cells.append(row.facts["K"])
            for name in SCORES:
                score = row.scores[name]
                bold = "**" if score.mean == best[name] else ""
                cells.append(f"{bold}{written(score)}{bold}")
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


SCORES = ("miou", "pixel_accuracy")


def _remarks(rows: Sequence[Row]) -> Iterator[str]:
    """Say of every method with K = C where it stands beside the best floor of its data set."""
    for data, _, _, words in DATA:
        own = _of(rows, data)
        under = [row for row in own if _floor(row)]
        if not under:
            continue
        floor = max(under, key=lambda row: row.scores["miou"].mean)
        score = written(floor.scores["miou"])
        yield f"- {words}: the best floor is {_name(floor)} with {score} mIoU."
        for row in own:
            if not _floor(row) and row.cell.settings["k"] != "auto":
                yield f"  {_name(row)} with `{row.cell.backbone}` is {_beside(row, floor)}."


def _beside(row: Row, floor: Row) -> str:
    """Say how far a row is from the floor, and whether that is more than chance."""
    own, other = row.scores["miou"], floor.scores["miou"]
    apart = own.mean - other.mean
    if abs(apart) <= (own.std or 0.0) + (other.std or 0.0):
        return "within the deviations of it"
    return f"{abs(apart):.1f} points {'above' if apart > 0 else 'below'}"
