"""What the documentation says must hold: links, commands, options, defaults, examples."""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import inspect
import re
import shlex
from pathlib import Path

import click
import numpy as np
import pytest
from PIL import Image

from zerolabel.backbones import filterbank
from zerolabel.backbones.registry import BACKBONES
from zerolabel.backbones.weights import megabytes
from zerolabel.cli.main import COMMANDS, cli
from zerolabel.data.geometry import GEOMETRIES
from zerolabel.data.synthetic import world
from zerolabel.errors import ZerolabelError
from zerolabel.evaluation.protocols import PROTOCOLS
from zerolabel.jobs.fit import FEW
from zerolabel.methods import METHODS, find
from zerolabel.methods.configs import configure
from zerolabel.ops.cluster import choose_k
from zerolabel.ops.matching import MATCHINGS
from zerolabel.recipes import RECIPES

ROOT = Path(__file__).parent.parent
SKIPPED = {".git", ".venv", ".pytest_cache", ".mypy_cache", ".ruff_cache", ".hypothesis"}
PAGES = sorted(
    path
    for path in ROOT.rglob("*.md")
    if not SKIPPED & set(path.relative_to(ROOT).parts) and not path.is_relative_to(ROOT / "runs")
)
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")
MACHINE = re.compile(r"(?<![\w.~])/(?:home|root|tmp|work|opt|mnt|usr|Users)\b|file://|localhost")
START = ("python3", "start.py")
PLACEHOLDER = re.compile(r"[A-Z]+[0-9]?")

spec = importlib.util.spec_from_file_location("start", ROOT / "start.py")
assert spec is not None
assert spec.loader is not None
start = importlib.util.module_from_spec(spec)
spec.loader.exec_module(start)


def named(paths: list[Path]) -> list[object]:
    return [pytest.param(path, id=path.relative_to(ROOT).as_posix()) for path in paths]


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def commands(page: Path) -> list[str]:
    """Every command line of the page, in fenced blocks and in code within the text."""
    text = page.read_text(encoding="utf-8")
    lines = [line for _, body in FENCE.findall(text) for line in body.splitlines()]
    lines += re.findall(r"`([^`\n]+)`", FENCE.sub("", text))
    return [line.strip() for line in lines if re.match(r"(zerolabel|python3 start\.py) ", line)]


def table(page: Path, title: str) -> list[list[str]]:
    """The rows of the table whose first column has a title, without the marks of code."""
    rows: list[list[str]] = []
    inside = False
    for line in page.read_text(encoding="utf-8").splitlines():
        cells = [re.sub(r"^`([^`]*)`$", r"\1", c.strip()) for c in line.strip("|").split("|")]
        if line.startswith(f"| {title} "):
            inside = True
        elif inside and not line.startswith("|"):
            break
        elif inside and set(line) - set("|- "):
            rows.append(cells)
    assert rows, f"{page.name} has no table of {title}"
    return rows


def test_there_are_pages() -> None:
    assert {"README.md", "CONTRIBUTING.md", "LICENSES.md"} <= {path.name for path in PAGES}


@pytest.mark.parametrize("page", named(PAGES))
def test_links_lead_somewhere(page: Path) -> None:
    broken = []
    for link in LINK.findall(FENCE.sub("", page.read_text(encoding="utf-8"))):
        if re.match(r"https?://", link):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert not broken


@pytest.mark.parametrize("page", named(PAGES))
def test_no_page_names_a_place_on_one_machine(page: Path) -> None:
    assert not MACHINE.findall(page.read_text(encoding="utf-8"))


def parse(line: str) -> None:
    """Parse a command line as the program would, without running it or needing its files."""
    words = shlex.split(line)
    words = words[2:] if tuple(words[:2]) == START else words[1:]
    if words[0] in start.WORK:
        assert len(words) == 1 or words[0] in ("test", "fast"), line
        return
    command: click.Command = cli
    context = click.Context(cli, info_name="zerolabel")
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        found = command.get_command(context, words[0])
        assert found is not None, f"{line}: no command {words[0]}"
        command, words = found, words[1:]
        context = click.Context(command, parent=context)
    values, rest, _ = command.make_parser(context).parse_args(list(words))
    assert not rest, f"{line}: {rest} left over"
    if words and "--help" not in words:  # the text may name a command alone
        lacking = [
            p.name for p in command.params if p.required and not _given(values.get(p.name or ""))
        ]
        assert not lacking, f"{line}: {lacking} missing"
    if command.name in ("segment", "fit", "sweep"):
        check_settings(values)
    if command.name == "reproduce" and isinstance(values.get("name"), str):
        assert values["name"] in RECIPES, line
    protocol = values.get("protocol")
    assert protocol is None or PLACEHOLDER.fullmatch(protocol) or protocol in PROTOCOLS, line


def check_settings(values: dict[str, object]) -> None:
    """Names and settings must be those of the method."""
    method = find(str(values.get("method") or "datus"))
    changes = {key: values.get(key) for key in ("k", "seed", "size", "refine", "discover")}
    changes |= {key: values.get(key) for key in ("describe", "categorise")}
    pairs = [str(text).partition("=") for text in values.get("changes") or ()]
    changes |= {name: value for name, _, value in pairs if name != "NAME"}
    configure(method.PRESETS, str(values.get("preset") or "default"), changes)
    if not values.get("weights"):  # with a file the name may be anything
        assert values.get("backbone") in (None, "auto", *BACKBONES)


@pytest.mark.parametrize("page", named([page for page in PAGES if commands(page)]))
def test_commands_parse(page: Path) -> None:
    for line in commands(page):
        parse(line)


@pytest.mark.parametrize(
    "line",
    [
        "zerolabel segment PHOTOS --out RUN --colour red",
        "zerolabel segment PHOTOS",
        "zerolabel predict --out RUN",
        "zerolabel segment PHOTOS --out RUN MORE",
        "zerolabel segmnt PHOTOS --out RUN",
        "zerolabel segment PHOTOS --out RUN --preset papr",
        "zerolabel segment PHOTOS --out RUN --backbone dino",
        "zerolabel segment PHOTOS --out RUN --set minimun=3",
        "zerolabel evaluate RUN --data ROOT --protocol half",
        "zerolabel reproduce datus-siim ROOT",
        "zerolabel sweep ROOT --method kmeans --out RUN",
        "python3 start.py docs more",
    ],
)
def test_a_wrong_command_is_noticed(line: str) -> None:
    with pytest.raises((AssertionError, click.ClickException, ZerolabelError)):
        parse(line)


def test_every_command_is_in_the_readme() -> None:
    lines = commands(ROOT / "README.md")
    assert {shlex.split(line)[1] for line in lines if line.startswith("zerolabel")} >= set(COMMANDS)


def test_the_words_of_work_are_those_of_make() -> None:
    make = (ROOT / "Makefile").read_text(encoding="utf-8")
    phony = re.search(r"^\.PHONY: (.+)$", make, re.MULTILINE)
    assert phony is not None
    assert phony[1].split() == list(start.WORK)
    assert all(f"    {word} " in (start.__doc__ or "") for word in start.WORK)
    scripts = [step[0] for steps in start.WORK.values() for step in steps if "/" in step[0]]
    assert all((ROOT / script).is_file() for script in scripts)


def written(value: object) -> str:
    """Write a default as the tables do."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, tuple):
        between = "x" if len(value) == 2 and all(isinstance(v, int) for v in value) else ","
        return between.join(f"{v:g}" for v in value)
    return str(value)


@pytest.mark.parametrize("method", METHODS)
def test_a_method_page_lists_every_option_and_preset(method: str) -> None:
    page = ROOT / "docs" / "methods" / f"{method}.md"
    presets = find(method).PRESETS
    fields = dataclasses.fields(presets["default"])
    expected = {field.name: written(getattr(presets["default"], field.name)) for field in fields}
    assert {row[0]: row[1] for row in table(page, "option")} == expected
    assert [row[0] for row in table(page, "preset")] == list(presets)


@pytest.mark.parametrize("method", METHODS)
def test_a_method_page_says_what_its_presets_change(method: str) -> None:
    presets = find(method).PRESETS
    said = dict(table(ROOT / "docs" / "methods" / f"{method}.md", "preset"))
    for name, config in presets.items():
        base = re.match(r"as `([\w-]+)`", said[name])
        start_from = dataclasses.asdict(presets[base[1] if base else "default"])
        after = dataclasses.asdict(config)
        changed = {key: written(value) for key, value in after.items() if value != start_from[key]}
        assert dict(re.findall(r"`(\w+) = ([\w.,+-]+)`", said[name])) == changed, name


def test_the_page_on_categories_has_the_numbers_of_the_code() -> None:
    page = (ROOT / "docs" / "categories.md").read_text(encoding="utf-8")
    default = {name: p.default for name, p in inspect.signature(choose_k).parameters.items()}
    assert "every k from {low} to {high}".format(**default) in page
    assert "More than {rows:,} are sampled down to {rows:,}.".format(**default) in page
    assert f"Below {FEW} images" in page


def _given(value: object) -> bool:
    """Whether a parameter has a value: a word, or at least one of several."""
    return isinstance(value, str) or (isinstance(value, list | tuple) and bool(value))


def test_the_design_names_every_file() -> None:
    house = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
    source = ROOT / "src" / "zerolabel"
    files = {path.name for path in source.rglob("*.py") if "cli" not in path.parts}
    named = set(re.findall(r"\w+\.py", house))
    assert not files - named - {"__init__.py", "__main__.py"}
    built = house.partition("## Where this differs")[0]
    assert not set(re.findall(r"\w+\.py", built)) - files - {"start.py", "test_architecture.py"}


def test_the_filter_bank_page_lists_every_setting() -> None:
    rows = table(ROOT / "docs" / "filterbank.md", "setting")
    fields = dataclasses.asdict(filterbank.Config())
    assert {row[0]: row[1] for row in rows} == {
        name: written(value) for name, value in fields.items()
    }


def test_the_weights_page_lists_every_backbone() -> None:
    expected = [
        [name, item.licence, megabytes(item), item.repo]
        for name, item in BACKBONES.items()
        if item.repo
    ]
    assert table(ROOT / "docs" / "weights.md", "name") == expected


def test_the_evaluation_page_lists_every_protocol() -> None:
    page = ROOT / "docs" / "evaluation.md"
    rows = table(page, "protocol") + table(page, "probe")
    assert [row[0] for row in rows] == list(PROTOCOLS)


def test_the_evaluation_page_has_the_rules_of_every_protocol() -> None:
    for name, *rules, _ in table(ROOT / "docs" / "evaluation.md", "protocol"):
        fields = ("geometry", "matching", "absent", "background", "crf")
        assert rules == [getattr(PROTOCOLS[name], field) for field in fields], name
    rows = table(ROOT / "docs" / "evaluation.md", "rule")
    assert [row[0] for row in rows] == list(MATCHINGS)
    rows = table(ROOT / "docs" / "evaluation.md", "geometry")
    assert [row[0] for row in rows] == list(GEOMETRIES)


def test_the_recipe_page_lists_every_recipe() -> None:
    rows = table(ROOT / "docs" / "recipes.md", "recipe")
    assert [row[0] for row in rows] == list(RECIPES)


def test_the_dependency_page_lists_every_dependency() -> None:
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    text = (ROOT / "docs" / "dependencies.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| `([\w-]+)` \|", text, re.MULTILINE)
    groups = re.findall(r"^(?:dependencies|dev) = \[\n(.*?)^\]", project, re.MULTILINE | re.DOTALL)
    asked = [name for group in groups for name in re.findall(r'^  "([\w-]+)', group, re.MULTILINE)]
    assert listed == asked


def photos(folder: Path) -> None:
    """A small planted world where the examples expect photos and labels."""
    for name in ("photos", "labelled/images", "labelled/masks"):
        (folder / name).mkdir(parents=True)
    for i, sample in enumerate(world(3, images=6)):
        suffix = "jpg" if i == 0 else "png"
        name = f"one.{suffix}" if i == 0 else sample.id
        for place in ("photos", "labelled/images"):
            Image.fromarray(sample.load()).save(folder / place / name)
        assert sample.load_label is not None
        label = np.asarray(sample.load_label(), np.uint8)
        Image.fromarray(label).save(folder / "labelled/masks" / Path(name).with_suffix(".png"))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["README.md", "docs/python.md"])
def test_python_examples_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few = functools.partial(filterbank.Config, patches=500)  # it is the examples that are tested
    monkeypatch.setattr(filterbank, "Config", few)
    monkeypatch.chdir(tmp_path)
    blocks = [
        body
        for kind, body in FENCE.findall((ROOT / name).read_text(encoding="utf-8"))
        if kind == "python"
    ]
    assert blocks
    photos(tmp_path)
    names: dict[str, object] = {}
    for body in blocks:
        exec(compile(body, name, "exec"), names)
    assert (tmp_path / "run" / "report" / "index.html").exists()
