"""`zerolabel refine` as it is typed."""

import json
import subprocess
import sys
from functools import partial

import pytest
from PIL import Image

import zerolabel
from zerolabel.cli.refine import in_words
from zerolabel.data.synthetic import world

pytestmark = pytest.mark.usefixtures("small_worlds")
TINY = ("iterations=2", "base=4", "depth=2", "size=32x32")
STUDENT = ("--student", "unet", *(word for pair in TINY for word in ("--set", pair)))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with photos and a run on them."""
    folder = tmp_path_factory.mktemp("place")
    (folder / "photos").mkdir()
    for sample in world(3, images=4, size=(32, 48), per_image=3):
        Image.fromarray(sample.load()).save(folder / "photos" / sample.id)
    options = {"method": "kmeans", "k": 3, "size": 48, "backbone": "filterbank"}
    zerolabel.segment(folder / "photos", folder / "run", report=False, **options)
    return folder


@pytest.fixture
def run(typed, place):
    return partial(typed, "refine")


def test_it_says_what_came_out(run, place, tmp_path):
    out = tmp_path / "out"
    code, said, err = run(place / "run", "--out", out, *STUDENT, "--seed", "5", "--trust", "0.3")
    assert code == 0, err
    lines = said.splitlines()
    assert lines[0] == "4 images (a folder) in 3 categories"
    assert lines[-3:-1] == [f"masks:  {out / 'masks'}", f"report: {out / 'report' / 'index.html'}"]
    state = json.loads((out / "run.json").read_text())
    assert lines[-1] == in_words(state["refined"])
    assert lines[-1].startswith("changed: ")
    assert state["refined"]["trust"] == 0.3
    config = state["job"]["config"]
    assert (config["seed"], config["iterations"], config["size"]) == (5, 2, [32, 32])
    stages = [line.split(":")[0] for line in err.splitlines()]
    assert {"read", "check masks", "train", "masks", "compare", "report"} <= set(stages)
    assert (out / "overlays").exists()


def test_less_is_written_where_less_is_asked_for(run, place, tmp_path):
    out = tmp_path / "out"
    (place / "photos/broken.jpg").write_text("no photo")
    try:
        found = run(place / "run", "--out", out, *STUDENT, "--no-overlays", "--no-report")
    finally:
        (place / "photos/broken.jpg").unlink()
    code, said, _ = found
    assert code == 3
    assert "1 image could not be read" in said
    assert not (out / "overlays").exists()
    assert not (out / "report").exists()


def test_what_changed_in_words():
    facts = {"changed": 0.123, "filled": 0.0456, "pieces_before": 12345, "pieces_after": 67}
    assert in_words(facts) == (
        "changed: 12.3% of the pixels (4.6% had no category before); "
        "12,345 connected pieces became 67"
    )
    assert "(" not in in_words(facts | {"filled": 0.0})


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--student", "ligth"], 2, "Did you mean 'light'"),
        (["--set", "k=5"], 2, "expected k=3, as "),
        (["--set", "nonsense"], 2, "--set takes NAME=VALUE"),
        (["--set", "iteration=5"], 2, "Did you mean 'iterations'"),
        (["--preset", "papr"], 2, "Unknown preset 'papr'"),
        (["--data", "gone"], 2, "does not exist"),
        (["--weights", "gone.pth"], 2, "does not exist"),
        (["--seed", "-1"], 2, "seed must be in 0"),
        (["--trust", "2"], 2, "to less than 1, found 2"),
    ],
)
def test_mistakes_are_explained(run, place, tmp_path, words, code, said):
    student = () if "--student" in words else ("--student", "unet")
    found, out, err = run(place / "run", "--out", tmp_path / "out", *student, *words)
    assert (found, out) == (code, "")
    assert said in err
    assert not (tmp_path / "out").exists()


def test_what_is_no_run(run, place, tmp_path):
    code, _, err = run(place / "photos", "--out", tmp_path / "out", *STUDENT)
    assert code == 1
    assert "is no finished run: expected masks" in err
    assert run(place / "run", *STUDENT)[0] == 2  # no --out


def test_help_answers_without_torch():
    code = (
        "import sys; from zerolabel.cli.main import main\n"
        "try: main()\n"
        "finally: assert 'torch' not in sys.modules"
    )
    command = [sys.executable, "-c", code, "refine", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for word in ("--student", "light, deeplabv3, segmenter, unet", "--data", "--set", "--no-"):
        assert word in " ".join(done.stdout.split())
