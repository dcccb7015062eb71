"""What methods share that learn from labels, true ones or the masks of another method."""

from __future__ import annotations

from collections.abc import Sequence

from zerolabel.data.census import Census
from zerolabel.errors import UsageError
from zerolabel.methods.base import Method, class_names
from zerolabel.stages import supervise
from zerolabel.store import Store
from zerolabel.types import Sample

NOTE = "labels: "


class ToldMethod(Method):
    """A method whose categories are the classes of labels; its Config has `k`."""

    def names(self) -> dict[int, str]:
        """See `Method.names`: those of the classes, where the data set has names."""
        return dict(enumerate(self.class_names[: self.k]))

    def told(
        self, samples: Sequence[Sample], *, advice: str, store: Store
    ) -> tuple[list[Sample], Census]:
        """Look at the labels once; what is odd about them becomes a note.

        Args:
            samples: sorted by id; those without a label are left out.
            advice: what to do if none has one.
            store: keeps what was seen.

        Returns:
            The samples with labels, and what these hold.

        Raises:
            UsageError: no sample has a label, a label holds what is no class, or samples differ in
                the names of classes.
            DataError: no pixel has a class.
        """
        labelled = [sample for sample in samples if sample.load_label is not None]
        if not labelled:
            raise UsageError(advice)
        self.class_names = class_names(labelled)
        k = self.config.k
        if isinstance(k, str) and k != "auto":
            raise UsageError(
                f"Labels say how many classes there are, and k = {k} was asked for. Leave k out, "
                "or give one number."
            )
        asked = k if isinstance(k, int) else len(self.class_names)
        seen = supervise.inspect(labelled, classes=asked or None, store=store)
        self.notes = [note for note in self.notes if not note.startswith(NOTE)]
        self.notes += [NOTE + problem for problem in seen.problems()]
        return labelled, seen
