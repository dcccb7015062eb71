"""What a run says about itself, as far as it matters to its score."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from zerolabel.data.geometry import FULL
from zerolabel.errors import StoreError, UsageError
from zerolabel.evaluation.protocol import Protocol
from zerolabel.store import read_json

CRF = "crf"  # the refinement that is a dense CRF


def read_facts(run: Path) -> dict[str, Any] | None:
    """Read how a run was made.

    Args:
        run: a run directory.

    Returns:
        method, backbone, weights (their hash), config, seed, refine and geometry; None for masks
        made elsewhere.
    """
    try:
        job = read_json(run / "run.json")["job"]
        config = dict(job["config"])
        return {
            "method": job["method"],
            "backbone": job["backbone"],
            "weights": job.get("weights"),
            "config": config,
            "seed": config.get("seed"),
            "refine": config.get("refine"),
            "geometry": job.get("geometry", FULL),
        }
    except (StoreError, KeyError, TypeError, ValueError):
        return None


def read_counted(run: Path) -> dict[str, Any] | None:
    """Read how many segments a run was fitted on; None where it does not tell."""
    try:
        return dict(read_json(run / "run.json")["segments"])
    except (StoreError, KeyError, TypeError, ValueError):
        return None


def read_view(run: Path) -> dict[str, Any]:
    """Read through what a run looked at its images, as `open_samples` takes it.

    Args:
        run: a run directory; one made elsewhere looked at whole images.

    Returns:
        geometry and previews, those of them that are not the usual ones.
    """
    try:
        job = dict(read_json(run / "run.json")["job"])
    except (StoreError, KeyError, TypeError, ValueError):
        return {}
    found = {name: job[name] for name in ("geometry", "previews") if name in job}
    return found | ({"previews": tuple(found["previews"])} if "previews" in found else {})


def check_suits(facts: dict[str, Any] | None, rules: Protocol) -> None:
    """Refuse a protocol that says another thing about the masks than the run itself.

    Args:
        facts: from `read_facts`; what is not known is not checked.
        rules: the protocol.

    Raises:
        UsageError: the run was refined by a dense CRF and must not be, or the reverse; or its
            images were looked at through the geometry of another protocol.
    """
    if facts is None:
        return
    refine, geometry = facts["refine"], facts["geometry"]
    if refine is not None and rules.crf != "any" and (refine == CRF) != (rules.crf == "on"):
        wanted = "refined by a dense CRF" if rules.crf == "on" else "without a dense CRF"
        other = CRF if rules.crf == "on" else "bilinear"
        raise UsageError(
            f"Protocol {rules.id} scores masks {wanted}; this run was refined by {refine}. Segment "
            f"again with --refine {other}, or choose another protocol."
        )
    if geometry not in (FULL, rules.geometry):
        raise UsageError(
            f"Protocol {rules.id} looks at images through the geometry {rules.geometry}; this run "
            f"was made through {geometry}. Use a protocol of that geometry, or segment again "
            f"{f'with --geometry {rules.geometry}' if rules.geometry != FULL else 'without one'}."
        )
