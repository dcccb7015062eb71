import subprocess
import sys

import pytest
from click.testing import CliRunner
from huggingface_hub import constants

from zerolabel.backbones.registry import BACKBONES, entry
from zerolabel.cli.models import models
from zerolabel.errors import UsageError, WeightsError

COMMIT = "f" * 40


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path


def lay(home, name):
    folder = home / f"models--{entry(name).repo.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text(COMMIT)
    path = folder / "snapshots" / COMMIT / "model.safetensors"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"")
    return path


def run(*args):
    return CliRunner().invoke(models, args, catch_exceptions=False)


@pytest.mark.parametrize("args", [(), ("list",)])
def test_listing_says_what_there_is_and_what_is_here(args, home):
    lay(home, "dino-vits8")
    result = run(*args)
    assert result.exit_code == 0
    table, legend = result.output.split("\n\n")
    rows = {line.split()[0]: line.split() for line in table.splitlines()[1:]}
    assert list(rows) == list(BACKBONES)
    assert max(map(len, table.splitlines())) < 110
    source = "huggingface.co/facebook/dino-vits8"
    assert rows["dino-vits8"][1:] == ["Apache-2.0", "87", "MB", "yes", "all", source]
    assert rows["dino-vits16"][4] == "no"
    assert rows["clip-vitb16"][1:6] == ["MIT", "598", "MB", "no", "all+"]
    assert rows["filterbank"][2:5] == ["-", "-", "tokens"]
    every = "attention, cls, context, keys, queries, received, slopes, tokens, values"
    more = "all+: these, and dense, joint, which go with words"
    taught = (
        "student: tokens, of what maskclip+ or reclip++ taught; --weights RUN/model.safetensors"
    )
    assert legend == f"all: {every}\n{more}\n{taught}\n"


def test_getting_what_is_here_prints_its_place(home):
    path = lay(home, "dinov2-vits14")
    result = run("get", "dinov2-vits14")
    assert result.output == f"dinov2-vits14: {path}\n"


def test_getting_says_size_and_licence_first(home):
    runner = CliRunner()
    result = runner.invoke(models, ["get", "dinov2-vitl14"])
    assert isinstance(result.exception, WeightsError)
    first = "dinov2-vitl14: about 1217 MB from huggingface.co/facebook/dinov2-large"
    assert result.output.startswith(f"{first}, licence Apache-2.0")


def test_a_clip_is_here_once_its_vocabulary_is(home):
    path = lay(home, "clip-vitb32")
    line = next(line for line in run("list").output.splitlines() if "clip-vitb32" in line)
    assert line.split()[4] == "no"
    (path.parent / "merges.txt").write_text("a b\n")
    line = next(line for line in run("list").output.splitlines() if "clip-vitb32" in line)
    assert line.split()[4] == "yes"
    result = run("get", "clip-vitb32")
    assert result.output == f"clip-vitb32: {path}\n"


def test_unknown_names_and_names_without_weights(home):
    with pytest.raises(UsageError, match="Did you mean 'dino-vits8'"):
        run("get", "dino-vits9")
    with pytest.raises(UsageError, match="needs no weights"):
        run("get", "filterbank")


def test_listing_does_not_import_torch(tmp_path):
    code = (
        "import sys; from zerolabel.cli.models import models; "
        "models(['list'], standalone_mode=False); assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert "dino-vits16" in done.stdout
