"""Names of cached features: keyed by weights, geometry and the content of the files."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from zerolabel.types import Sample


def key(kind: str, samples: Sequence[Sample], *facts: object) -> str:
    """Name the stage of a batch by all that its result depends on.

    Args:
        kind: what is computed, e.g. "tokens"; the folder of the stage.
        samples: the batch; the content of its files counts, not only their names.
        facts: everything else: the backbone's digest, image size, options.

    Returns:
        A name for `Store.stage`.
    """
    digest = hashlib.blake2b(repr(facts).encode(), digest_size=12)
    for sample in samples:
        digest.update(f"{sample.id!r} {sample.digest()}".encode())
    return f"{kind}/{digest.hexdigest()}"
