"""The command line as a user meets it: exit codes, words, and never a traceback."""

import io
import json
import os
import re
import subprocess
import sys

import click
import numpy as np
import pytest
from PIL import Image

from zerolabel.cli import main as main_module
from zerolabel.cli import options
from zerolabel.cli.main import COMMANDS, main
from zerolabel.data.synthetic import world
from zerolabel.methods import METHODS, find
from zerolabel.stages.categorise import CATEGORISE
from zerolabel.stages.describe import DESCRIBE
from zerolabel.stages.discover import DISCOVER
from zerolabel.stages.refine import REFINE

pytestmark = pytest.mark.usefixtures("small_worlds")
FAST = ("--method", "kmeans", "--k", "3", "--size", "64", "--no-report")


@pytest.fixture(autouse=True)
def _offline(monkeypatch, tmp_path):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.delenv("ZEROLABEL_DEBUG", raising=False)


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for sample in world(3, images=5, size=(48, 64), per_image=3):
        Image.fromarray(sample.load()).save(folder / sample.id)
    return folder


@pytest.fixture
def zerolabel(typed):
    return typed


def subprocess_env(**changes):
    return os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"} | changes


# --- what works ----------------------------------------------------------------------------------


def test_segment_says_what_came_out(zerolabel, photos, tmp_path):
    run = tmp_path / "run"
    code, out, err = zerolabel("segment", photos, "--out", run, *FAST[:-1])
    assert code == 0
    assert out.splitlines() == [
        "5 images (a folder) in 3 categories",
        f"masks:  {run / 'masks'}",
        f"report: {run / 'report' / 'index.html'}",
    ]
    assert (run / "report" / "index.html").exists()
    # one line per stage, as standard error is no terminal here
    stages = [line.split(":")[0] for line in err.splitlines()]
    assert stages == ["read", "learn", "encode", "masks", "report"]
    assert all(": 5 in " in line for line in err.splitlines())


def test_fit_then_predict_on_new_photos(zerolabel, photos, tmp_path):
    code, out, _ = zerolabel("fit", photos, "--out", tmp_path / "model", *FAST[:-1])
    assert code == 0
    assert out.splitlines() == [
        f"3 categories from {photos}",
        f"model: {tmp_path / 'model' / 'model.safetensors'}",
    ]
    (photos / "broken.png").touch()
    model, run = tmp_path / "model", tmp_path / "run"
    code, out, _ = zerolabel("predict", model, photos, "--out", run, "--no-report")
    assert code == 3
    assert "1 image could not be read" in out
    assert "  broken.png: the file is empty" in out
    failures = json.loads((run / "failures.json").read_text())
    assert failures == {"failures": [{"id": "broken.png", "reason": "the file is empty"}]}
    assert len(list((run / "masks").iterdir())) == 5


@pytest.mark.parametrize("command", ["segment", "fit"])
def test_failures_are_exit_code_3(zerolabel, photos, tmp_path, command):
    for i in range(7):
        (photos / f"broken-{i}.jpg").write_text("text")
    words = FAST if command == "segment" else FAST[:-1]
    for _ in range(2):
        code, out, _ = zerolabel(command, photos, "--out", tmp_path / "run", *words)
        assert code == 3
        assert f"7 images could not be read: {tmp_path / 'run' / 'failures.json'}" in out
        assert "broken-4.jpg: not an image" in out
        assert "broken-5.jpg" not in out
        assert "and 2 more" in out


def test_nothing_readable_is_exit_code_1(zerolabel, tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").touch()
    code, out, err = zerolabel("segment", tmp_path / "photos", "--out", tmp_path / "run", *FAST)
    assert (code, out) == (1, "")
    assert "the file is empty" in (tmp_path / "run" / "failures.json").read_text()
    assert "could be read" in err


def test_a_guess_is_called_one(zerolabel, photos, tmp_path):
    for path in sorted(photos.iterdir())[2:]:
        path.unlink()
    words = [word for word in FAST if word not in ("--k", "3")]
    code, out, _ = zerolabel("segment", photos, "--out", tmp_path / "run", *words)
    assert code == 0
    assert "is a guess, because 2 images are too few" in out
    assert "--k sets it" in out


def test_settings_from_a_file_and_the_command_line(zerolabel, photos, tmp_path):
    (tmp_path / "a.yaml").write_text("method-less: 1\n")
    (tmp_path / "b.yaml").write_text("k: 2\nseed: 5\nsize: 64\nrestarts: 3\n")
    run = tmp_path / "run"
    base = ("segment", photos, "--out", run, "--method", "kmeans", "--no-report")
    assert zerolabel(*base, "--config", tmp_path / "a.yaml")[0] == 2
    code, *_ = zerolabel(
        *(*base, "--config", tmp_path / "b.yaml", "--set", "restarts=4", "--set", "seed=6"),
        *("--seed", "7"),
    )
    assert code == 0
    config = json.loads((run / "run.json").read_text())["job"]["config"]
    assert [config[name] for name in ("k", "restarts", "seed")] == [2, 4, 7]
    assert config["size"] == [64, 64]


def test_an_empty_settings_file_changes_nothing(zerolabel, photos, tmp_path):
    (tmp_path / "a.yaml").write_text("# nothing yet\n")
    words = ("segment", photos, "--out", tmp_path / "run", *FAST, "--config", tmp_path / "a.yaml")
    assert zerolabel(*words)[0] == 0


# --- wrong usage: exit code 2 and what to do -----------------------------------------------------


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["--method", "k-means"], "Did you mean 'kmeans'?"),
        (["--method", "zzz"], "Known: acseg, datus"),
        (["--backbone", "dino-vits61"], "Did you mean 'dino-vits16'"),
        (["--preset", "papper"], "Did you mean 'paper'"),
        (["--refine", "guidet"], "Did you mean 'guided'"),
        (["--discover", "louvin"], "Did you mean 'louvain'"),
        (["--set", "restrats=3"], "Did you mean 'restarts'"),
        (["--set", "nonsense"], "--set takes NAME=VALUE"),
        (["--set", "=3"], "--set takes NAME=VALUE"),
        (["--set", "restarts=many"], "restarts must be"),
        (["--set", "restarts=0"], "restarts must be 1 or more"),
        (["--k", "0"], "expected auto or a whole number from 1 on, found '0'"),
        (["--k", "-3"], "expected auto or a whole number from 1 on"),
        (["--k", "abc"], "found 'abc'"),
        (["--k", "8-"], "found '8-'. A range is 8-30"),
        (["--k", "9-8"], "a range such as 8-30 that begins with 2 or more, got '9-8'"),
        (["--k", "2-99999999"], "k must be auto or a whole number in 1..65535, or a range"),
        (["--k", "99999999"], "k must be auto or a whole number in 1..65535"),
        (["--k", "5000"], "5000 categories were asked for, but only"),
        (["--size", "0"], "expected pixels such as 224"),
        (["--size", "224x"], "expected pixels such as 224"),
        (["--size", "1x2x3"], "expected pixels such as 224"),
        (["--size", "7"], "needs at least 8 pixels"),
        (["--size", "1000000"], "give 1024 or less"),
        (["--seed", "-1"], "seed must be in 0"),
        (["--seed", "x"], "not a valid integer"),
        (["--device", "gpu"], "Unknown device 'gpu'"),
        (["--device", "cuda:77"], "is not on this machine"),
        (["--split", "val"], "Leave --split out"),
        (["--weights", "weights.txt"], "filterbank takes no weights"),
        (["--weights", "gone.pth"], "does not exist"),
        (["--config", "bad.yaml"], "no YAML file of settings"),
        (["--config", "list.yaml"], "must hold settings as `name: value` lines"),
        (["--config", "numbers.yaml"], "must hold settings as `name: value` lines"),
        (["--config", "binary.yaml"], "no YAML file of settings"),
        (["--frobnicate"], "No such option"),
        (["--refin", "guided"], "--refine"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_flags(zerolabel, photos, tmp_path, monkeypatch, words, hint):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "weights.txt").write_text("no weights")
    (tmp_path / "bad.yaml").write_text("k: [")
    (tmp_path / "list.yaml").write_text("- k\n")
    (tmp_path / "numbers.yaml").write_text("1: 2\n")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    code, out, err = zerolabel("segment", photos, "--out", "run", "--size", "64", *words)
    assert (code, out) == (2, "")
    assert hint in err
    assert "bug" not in err
    assert not (tmp_path / "run" / "masks").exists()


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        ([], "Usage: zerolabel"),
        (["segmnt"], "Did you mean 'segment'?"),
        (["segment"], "Missing argument 'PHOTOS'"),
        (["segment", "."], "Missing option '--out'"),
        (["segment", "nowhere", "--out", "run"], "'nowhere' does not exist"),
        (["segment", "photos", "--out", "file"], "is a file"),
        (["segment", "photos", "--out", "photos"], "is the folder of the images itself"),
        (["predict", "nowhere", "photos", "--out", "run"], "'nowhere' does not exist"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_words(zerolabel, photos, tmp_path, monkeypatch, words, hint):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    code, _, err = zerolabel(*words)
    assert code == 2
    assert hint in err


# --- what fails: exit code 1 and what to do ------------------------------------------------------


def test_an_empty_folder(zerolabel, tmp_path):
    (tmp_path / "photos").mkdir()
    code, _, err = zerolabel("segment", tmp_path / "photos", "--out", tmp_path / "run")
    assert code == 1
    assert "holds no image" in err
    assert not (tmp_path / "run").exists()


def test_missing_weights(zerolabel, photos, tmp_path):
    words = ("segment", photos, "--out", tmp_path / "run", "--backbone", "dino-vits16")
    code, _, err = zerolabel(*words)
    assert code == 1
    for advice in ("zerolabel models get dino-vits16", "--weights FILE", "--backbone embedded"):
        assert advice in err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["weights.pth", "weights.safetensors"])
def test_weights_that_are_none(zerolabel, photos, tmp_path, name):
    (tmp_path / name).write_text("just text")
    words = ("segment", photos, "--out", tmp_path / "run", "--backbone", "dino-vits16")
    code, _, err = zerolabel(*words, "--weights", tmp_path / name)
    assert code == 1
    assert name in err


def test_places_that_cannot_be_written(zerolabel, photos, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / "run.json").mkdir()
    code, _, err = zerolabel("segment", photos, "--out", run, *FAST)
    assert code == 1
    assert "run.json" in err
    if os.path.isdir("/proc/self"):
        code, _, err = zerolabel("segment", photos, "--out", "/proc/zerolabel", *FAST)
        assert code == 1
        assert "/proc/zerolabel cannot be written" in err


def test_a_cache_that_cannot_be_written(zerolabel, photos, tmp_path, monkeypatch):
    run = tmp_path / "run"
    words = ("segment", photos, "--out", run, *FAST)
    write = main_module.os.replace

    def refuse(source, target):
        if "cache" in str(target):
            raise PermissionError(13, "Permission denied", str(target))
        write(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", refuse)
        code, _, err = zerolabel(*words)
    assert code == 1
    assert "cannot be written: Permission denied" in err
    assert zerolabel(*words)[0] == 0


def test_a_model_that_is_none(zerolabel, photos, tmp_path):
    (tmp_path / "model").mkdir()
    code, _, err = zerolabel("predict", tmp_path / "model", photos, "--out", tmp_path / "run")
    assert code == 1
    assert "model.json is not there" in err
    assert not (tmp_path / "run").exists()


def raising(error):
    def command(*_, **__):
        raise error

    return command


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (KeyboardInterrupt(), 1, "Interrupted. Run the same command again to go on from here."),
        (click.Abort(), 1, "Interrupted"),
        (MemoryError(), 1, "Out of memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), 1, "Out of memory"),
        (OSError(5, "Input/output error", "x"), 1, "The operating system refused"),
        (ZeroDivisionError("division by zero"), 1, "This is a bug in zerolabel: ZeroDivision"),
        (click.FileError("x", "gone"), 1, "gone"),
        (click.UsageError("so not"), 2, "so not"),
    ],
    ids=repr,
)
def test_every_error_becomes_words(zerolabel, monkeypatch, error, code, words):
    monkeypatch.setattr(main_module, "cli", raising(error))
    got, out, err = zerolabel("anything")
    assert (got, out) == (code, "")
    assert words in err
    assert len(err.strip().splitlines()) == 1 or code == 2


def test_a_bug_can_be_looked_at(monkeypatch):
    monkeypatch.setenv("ZEROLABEL_DEBUG", "1")
    monkeypatch.setattr(main_module, "cli", raising(ZeroDivisionError("x")))
    with pytest.raises(ZeroDivisionError):
        main()


# --- the terminal --------------------------------------------------------------------------------


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_bars_show_rate_and_time_left_on_a_terminal(monkeypatch):
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    now = [0.0]
    monkeypatch.setattr("tqdm.std.time", lambda: now[0])
    with options.progress_bars() as report:
        report("masks", 0, 10)
        now[0] += 2
        report("masks", 5, 10)
        halfway = screen.getvalue().split("\r")[-1]
        now[0] += 2
        report("masks", 10, 10)
    assert "masks:  50%" in halfway
    assert "[00:02<00:02" in halfway
    assert "2.50/s" in halfway
    assert "100%" in screen.getvalue()


def test_one_line_per_stage_elsewhere(capsys):
    with options.progress_bars() as report:
        for done in range(6):
            report("masks", done, 5)
            assert (capsys.readouterr().err != "") == (done == 5)


@pytest.mark.parametrize("number", [0, 1, 2])
def test_counts_in_words(number):
    assert options.count(number, "image") == f"{number} image{'' if number == 1 else 's'}"
    assert options.count(number, "category") == f"{number} categor{'y' if number == 1 else 'ies'}"


def test_help_names_everything_there_is(zerolabel):
    code, out, _ = zerolabel("segment", "--help")
    assert code == 0
    text = " ".join(re.sub(r"-\n +", "-", out).split())  # lines may end at a hyphen
    for table in (METHODS, DISCOVER, DESCRIBE, CATEGORISE, REFINE):
        for name in table:
            assert name in text
    for method in METHODS:
        for preset in find(method).PRESETS:
            assert preset in text
    assert all(line.strip() for line in out.splitlines() if line.startswith("  --"))


# --- real processes ------------------------------------------------------------------------------


def test_help_imports_neither_torch_nor_numpy():
    look = (
        "import sys; sys.argv = ['zerolabel', '--help']\n"
        "from zerolabel.cli.main import main\n"
        "try: main()\n"
        "except SystemExit as end: code = end.code\n"
        "heavy = {'torch', 'numpy', 'scipy', 'PIL', 'yaml', 'huggingface_hub', 'jinja2', 'tqdm'}\n"
        "print(code, sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True)
    *page, last = done.stdout.splitlines()
    assert last == "0 []"
    commands = [line.split()[0] for line in page[page.index("Commands:") + 1 :] if line.strip()]
    assert commands == list(COMMANDS)


def test_python_dash_m():
    words = [sys.executable, "-m", "zerolabel", "--version"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert "0." in done.stdout


@pytest.mark.skipif(os.name != "posix", reason="needs a shell")
def test_a_reader_that_went_away():
    script = f"{sys.executable} -m zerolabel models | head -1"
    done = subprocess.run(
        ["sh", "-c", script], capture_output=True, text=True, check=False, env=subprocess_env()
    )
    assert done.stdout.startswith("NAME")
    assert done.stderr == ""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="needs names that are no Unicode")
@pytest.mark.parametrize("encoding", ["ascii:strict", "utf-8:strict"])
def test_names_that_the_terminal_cannot_show(tmp_path, encoding):
    photos = tmp_path / os.fsdecode(b"caf\xe9")
    photos.mkdir()
    rng = np.random.default_rng(0)
    for name in (b"\xff\xfe.png", "日本.png".encode(), b"gone.jpg"):
        pixels = rng.integers(0, 255, (40, 40, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "x.png")
        os.rename(tmp_path / "x.png", os.fsencode(photos) + b"/" + name)
    (photos / os.fsdecode(b"\xe9.jpg")).touch()
    words = [sys.executable, "-m", "zerolabel", "segment", photos, "--out", photos / "run"]
    done = subprocess.run(
        [*words, "--k", "2", "--size", "64"],
        capture_output=True,
        check=False,
        env=subprocess_env(LC_ALL="C", PYTHONIOENCODING=encoding),
    )
    assert done.returncode == 3, done.stderr
    assert b"1 image could not be read" in done.stdout
    assert b"Traceback" not in done.stderr
    assert len(list((photos / "run" / "masks").iterdir())) == 3


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="measures memory as Linux does")
def test_a_photo_of_12_megapixels(tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    for sample in world(3, images=3, size=(60, 90), per_image=3):
        Image.fromarray(sample.load()).save(photos / sample.id)
    first = Image.open(photos / "world-000.png")
    first.resize((4000, 3000)).save(photos / "large.jpg", quality=80)
    words = [sys.executable, "-m", "zerolabel", "segment", photos, "--out", tmp_path / "run"]
    done = subprocess.run(
        [*words, "--k", "3", "--no-overlays"],
        capture_output=True,
        check=False,
        env=subprocess_env(),
    )
    assert done.returncode == 0, done.stderr
    with Image.open(tmp_path / "run" / "masks" / "large.png") as mask:
        assert mask.size == (4000, 3000)
    assert json.loads((tmp_path / "run" / "run.json").read_text())["peak_memory_mb"] < 1300
