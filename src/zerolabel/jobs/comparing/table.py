"""The table of a comparison: rows of runs that differ in their seed only, columns of equal rules.

Nothing here reads a file; all follows from the contents of evaluation files.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from zerolabel.evaluation.spread import Spread, spread

METRICS = {"miou": "mIoU", "pixel_accuracy": "pixel accuracy"}
MARKS = {True: " *", False: "", None: " ?"}
LEGEND = (
    "Percent: mean and standard deviation over n seeds. Differences are taken to the {against} "
    "row: * is larger than both standard deviations together, ? cannot be told from one seed, and "
    "one without a mark is no difference. Columns are never compared with one another."
)
PICTURED = 6  # runs of a column up to which each is drawn, else one for every row


@dataclass(frozen=True)
class Column:
    """What scores must share to be compared.

    Attributes:
        dataset: name of the data set.
        split: of the data set.
        space: label space.
        protocol: its id.
        rules: all rules of the protocol, so that two versions of one id stay apart, and what
            clusters were matched on, as JSON.
        images: number of images that were scored.
        data_hash: of the list of images.
        classes: names of the scored classes.
    """

    dataset: str
    split: str
    space: str
    protocol: str
    rules: str
    images: int
    data_hash: str
    classes: tuple[str, ...]

    @property
    def title(self) -> str:
        """A few words, not always unique."""
        space = f" {self.space}" if self.space != self.dataset else ""
        return f"{self.dataset} {self.split}{space}, {self.protocol}"

    @property
    def words(self) -> str:
        """All that a number must be read with, but what belongs to the run."""
        return (
            f"protocol {self.protocol}, {self.dataset} {self.split}, label space {self.space}, "
            f"{self.images} images, C = {len(self.classes)}"
        )


@dataclass(frozen=True)
class Score:
    """One run in one column.

    Attributes:
        run: the run directory.
        column: what it was scored on, and how.
        result: the content of the evaluation file.
    """

    run: Path
    column: Column
    result: Mapping[str, Any] = field(compare=False)

    @property
    def seed(self) -> int | None:
        """Seed of the run; None for masks made elsewhere."""
        made = self.result["run"]
        return None if made is None else made["seed"]


@dataclass(frozen=True)
class Difference:
    """How far a mean lies from the reference's.

    Attributes:
        value: this minus the reference, -1..1.
        real: whether it is larger than both standard deviations together; None if one is unknown.
    """

    value: float
    real: bool | None

    @property
    def words(self) -> str:
        """Write it in percent, with its mark."""
        return f"{100 * self.value + 0.0:+5.1f}{MARKS[self.real]}"


@dataclass(frozen=True)
class Cell:
    """The scores of a row in a column, one per seed."""

    scores: tuple[Score, ...]

    @property
    def seeds(self) -> list[int]:
        """Seeds that are known."""
        return [score.seed for score in self.scores if score.seed is not None]

    @property
    def clusters(self) -> list[int]:
        """K of the runs, each once."""
        return sorted({int(score.result["clusters"]) for score in self.scores})

    def spread(self, metric: str) -> Spread:
        """Mean and deviation of a metric."""
        return spread([score.result[metric] for score in self.scores])

    def classes(self) -> list[Spread | None]:
        """Mean and deviation of the IoU of every class; None where no run has one."""
        every = [[entry["iou"] for entry in score.result["per_class"]] for score in self.scores]
        found = zip(*every, strict=True)
        values = [[iou for iou in ious if iou is not None] for ious in found]
        return [spread(ious) if ious else None for ious in values]

    def difference(self, reference: Cell, metric: str) -> Difference:
        """Compare with another row of the same column."""
        own, other = self.spread(metric), reference.spread(metric)
        value = own.mean - other.mean
        if own.std is None or other.std is None:
            return Difference(value, None)
        return Difference(value, abs(value) > own.std + other.std)


@dataclass(frozen=True)
class Row:
    """Runs that differ in nothing but their seed.

    Attributes:
        label: a few words, unique in the table.
        facts: method, backbone and settings; empty for masks made elsewhere.
        cells: by column.
    """

    label: str
    facts: Mapping[str, str]
    cells: Mapping[Column, Cell]


@dataclass(frozen=True)
class Table:
    """Methods x data sets."""

    rows: tuple[Row, ...]
    columns: tuple[Column, ...]
    against: str  # "first" or "best"

    def reference(self, column: Column) -> Row:
        """The row that others are compared with in a column."""
        rows = [row for row in self.rows if column in row.cells]
        if self.against == "first":
            return rows[0]
        return max(rows, key=lambda row: row.cells[column].spread("miou").mean)

    def floor(self, column: Column) -> str:
        """Say what a segmentation that knows nothing would score in a column."""
        found = self.reference(column).cells[column].scores[0].result["floor"]
        means = ", ".join(f"{name} {100 * found[key]:.1f}" for key, name in METRICS.items())
        return f"one category everywhere: {means}"

    def difference(self, row: Row, column: Column, metric: str) -> Difference | None:
        """How a row differs from the reference of a column; None for that row itself."""
        reference = self.reference(column)
        if row is reference:
            return None
        return row.cells[column].difference(reference.cells[column], metric)

    def pictured(self, column: Column) -> list[tuple[str, Score]]:
        """Choose the runs of a column that are drawn, each with a name."""
        found = []
        cells = [(row.label, row.cells[column]) for row in self.rows if column in row.cells]
        few = sum(len(cell.scores) for _, cell in cells) <= PICTURED
        for label, cell in cells:
            for score in cell.scores if few else cell.scores[:1]:
                seed = f", seed {score.seed}" if len(cell.scores) > 1 else ""
                found.append((f"{label}{seed}", score))
        return found
