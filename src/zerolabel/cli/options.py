"""What several commands share: their options, progress bars and the closing lines."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from zerolabel.cli.params import K, Numbers, Size
from zerolabel.errors import UsageError
from zerolabel.methods import METHODS

if TYPE_CHECKING:
    from zerolabel.jobs.fit import Options
    from zerolabel.jobs.run.finish import Run

VIEW = ("geometry", "previews")  # through what images are looked at
SHOWN = 5  # failures that are printed
F = TypeVar("F", bound=Callable[..., Any])

FIT = (
    click.option(
        "--method", default="datus", show_default=True, help=f"One of {', '.join(METHODS)}."
    ),
    click.option(
        "--k", type=K(), help="Number of categories, a range of it, or auto.  [default: auto]"
    ),
    click.option(
        "--classes",
        metavar="WORDS",
        help='What to look for instead: "cat, dog, grass, sky", a file with one per line, or a '
        "label space such as voc20.  [methods with words]",
    ),
    click.option(
        "--background",
        metavar="WORDS",
        help="Words of what is none of the classes.  [methods with words]",
    ),
    click.option(
        "--preset",
        default="default",
        show_default=True,
        help="default, protocol (no photo-guided refinement), or the method's own; acseg: voc, "
        "coco; datus: paper, paper-code, suim8, suim6, suim5, coco27; deeplab: deeplabv3, "
        "deeplabv3-16, deeplabv3-101; "
        "segmenter: official-ade20k, official-context, official-cityscapes, seed; transfgu: "
        "coco27, coco27-curated, coco171, coco80, cityscapes, voc, lip5, lip16, lip19; maskclip, "
        "maskclip+, reclip and reclip++: legacy_mmseg, voc, context, ade20k, cityscapes, coco27; "
        "wnet: original, seed-mp4, seed-ade20k, seed-ade20k-150, single-image.",
    ),
    click.option(
        "--backbone",
        default="auto",
        show_default=True,
        help="auto is DINO if its weights are here, else embedded; `zerolabel models` lists all.",
    ),
    click.option(
        "--discover",
        metavar="NAME",
        help="louvain, kmeans, attention, concepts (acseg only), spectral, affinity-propagation or "
        "agglomerative.  [region methods]",
    ),
    click.option(
        "--describe",
        metavar="NAME",
        help="crop-cls, masked-cls, pool or concept (acseg only).  [region methods]",
    ),
    click.option("--categorise", metavar="NAME", help="kmeans or minibatch."),
    click.option(
        "--refine", metavar="NAME", help="guided, crf, bilinear or nearest.  [default: guided]"
    ),
    click.option(
        "--level",
        type=float,
        help="Merge pieces whose borders are weaker, 0..1.  [wnet; default: 0]",
    ),
    click.option("--seed", type=int, help="Fixes every random draw.  [default: 0]"),
    click.option("--size", type=Size(), help="Pixels to encode at.  [default: 224]"),
    click.option(
        "--set",
        "changes",
        metavar="NAME=VALUE",
        multiple=True,
        help="Any other setting of the method; repeatable.",
    ),
    click.option(
        "--config",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        help="YAML file of settings; --set and the options above win.",
    ),
)
DATA = (
    click.option("--split", help="Split of a data set in a known layout, e.g. val."),
    click.option(
        "--weights",
        type=click.Path(exists=True, dir_okay=False),
        help="Weights file of the backbone.",
    ),
    click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or mps."),
)
GEOMETRY = (
    click.option(
        "--geometry",
        metavar="NAME",
        default="full",
        show_default=True,
        help="Size and crop at which a protocol looks at images: full, picie-320, stego-320, "
        "transfgu or maskcontrast-512; masks have that size.",
    ),
    click.option(
        "--previews",
        type=Numbers("3,2,1", least=0),
        help="Numbers, from 0, of the bands that are red, green and blue where images with more of "
        "them are shown, e.g. 3,2,1.",
    ),
)
OUT = click.option(
    "--out",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="The run directory, made if missing; run again to go on with an interrupted job.",
)
OUTPUT = (
    click.option(
        "--overlays/--no-overlays",
        default=True,
        show_default=True,
        help="Photos with the colours of the categories over them.",
    ),
    click.option(
        "--report/--no-report",
        default=True,
        show_default=True,
        help="A page to open in a browser.",
    ),
)


def options(*groups: Sequence[Callable[[F], F]]) -> Callable[[F], F]:
    """Add groups of options to a command, in their order."""

    def add(command: F) -> F:
        for option in reversed([option for group in groups for option in group]):
            command = option(command)
        return command

    return add


def build_options(asked: dict[str, Any]) -> Options:
    """Turn the options of a command into what the job takes.

    Args:
        asked: values by option name; those that are no job options are settings of the method.

    Returns:
        The job's options.

    Raises:
        UsageError: a setting or a YAML file that cannot be understood.
    """
    from zerolabel.jobs.fit import Options

    settings = _read_settings(asked.pop("config"))
    settings |= parse_changes(asked.pop("changes"))
    names = ("method", "preset", "backbone", "weights", "device", "split")
    chosen = {name: asked.pop(name) for name in names}
    view = {name: asked.pop(name, None) or getattr(Options, name) for name in VIEW}
    given = {name: value for name, value in asked.items() if value is not None}
    return Options(**chosen, **view, settings=settings | given)


@contextmanager
def progress_bars() -> Iterator[Callable[[str, int, int], None]]:
    """Show one bar per stage with rate and time left, or one line where nobody watches."""
    if not sys.stderr.isatty():
        yield _Lines()
        return
    from tqdm import tqdm

    bars: dict[str, Any] = {}

    def report(work: str, done: int, total: int) -> None:
        if work not in bars:
            bars[work] = tqdm(total=total, desc=work, unit="", mininterval=0.1, dynamic_ncols=True)
        bars[work].update(done - bars[work].n)
        if done >= total:
            bars.pop(work).close()

    try:
        yield report
    finally:
        for bar in bars.values():
            bar.close()


class _Lines:
    """One line per stage, when it is done."""

    def __init__(self) -> None:
        self.began: dict[str, float] = {}

    def __call__(self, work: str, done: int, total: int) -> None:
        began = self.began.setdefault(work, time.perf_counter())
        if done >= total:
            seconds = time.perf_counter() - self.began.pop(work, began)
            click.echo(f"{work}: {total} in {seconds:.1f} s", err=True)


def announce(run: Run) -> int:
    """Print what came out of a run.

    Args:
        run: the finished run.

    Returns:
        The exit code, see `failed`.
    """
    images, k = count(run.images, "image"), count(len(run.categories), "category")
    click.echo(f"{images} ({run.data}) in {k}")
    for note in run.notes:
        click.echo(f"note: {note}")
    click.echo(f"masks:  {run.path / 'masks'}")
    if run.report is not None:
        click.echo(f"report: {run.report}")
    return failed(run.failures, run.path)


def failed(failures: Mapping[str, str], out: Path, *, listed: str = "failures.json") -> int:
    """Print which images could not be read, if any.

    Args:
        failures: id -> reason.
        out: the run directory.
        listed: the file in it that lists them.

    Returns:
        The exit code: 3 if there are some, else 0.
    """
    if not failures:
        return 0
    click.echo(f"{count(len(failures), 'image')} could not be read: {out / listed}")
    for name, reason in list(failures.items())[:SHOWN]:
        click.echo(f"  {name}: {reason}")
    if len(failures) > SHOWN:
        click.echo(f"  and {len(failures) - SHOWN} more")
    return 3


def count(number: int, word: str) -> str:
    """Say how many: "1 image", "4 categories"."""
    plural = f"{word[:-1]}ies" if word.endswith("y") else f"{word}s"
    return f"{number} {word if number == 1 else plural}"


def _read_settings(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    import yaml

    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise UsageError(f"{path} is no YAML file of settings: {reason}") from None
    if found is None:  # an empty file
        return {}
    if not isinstance(found, dict) or not all(isinstance(name, str) for name in found):
        raise UsageError(f"{path} must hold settings as `name: value` lines, found {found!r}.")
    return {_field(name): value for name, value in found.items()}


def parse_changes(texts: Iterable[str]) -> dict[str, str]:
    """Read the values of --set; a text that is no NAME=VALUE is wrong usage."""
    return dict(_pair(text) for text in texts)


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name.strip():
        raise UsageError(f"--set takes NAME=VALUE, e.g. --set minimum=10; found {text!r}.")
    return _field(name), value.strip()


def _field(name: str) -> str:
    """Turn a name as it is typed into the name of a field."""
    return name.strip().replace("-", "_")
