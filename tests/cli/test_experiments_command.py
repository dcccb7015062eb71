"""`zerolabel sweep` and `zerolabel reproduce` from the command line."""

import json

import pytest
from click.testing import CliRunner

from zerolabel import recipes
from zerolabel.cli.main import cli
from zerolabel.data.planted import plant
from zerolabel.errors import UsageError, ZerolabelError


@pytest.fixture(scope="module")
def camvid(tmp_path_factory):
    return plant("camvid", tmp_path_factory.mktemp("data"), images=2, size=(64, 64))


def call(*words):
    """Run a command; returns its exit code and what it printed, or raises what it raised."""
    done = CliRunner().invoke(cli, [*map(str, words)], standalone_mode=False)
    if done.exception is not None:
        raise done.exception
    return done.return_value, done.output


TINY = ("--backbone", "random-vitt16", "--size", "64", "--method", "kmeans")


def test_a_sweep_prints_its_table_and_writes_its_files(camvid, tmp_path):
    out = tmp_path / "out"
    over = ("--over", "k=2:4:2", "--seeds", 2, "--split", "val")
    code, text = call("sweep", camvid, *TINY, *over, "--out", out)
    assert code == 0
    assert "protocol full" in text
    assert "seeds 2" in text
    kept = json.loads((out / "table.json").read_text())
    assert [row["K"] for row in kept["rows"]] == ["2", "4"]
    assert {"table.csv", "table.json", "chart.svg"} <= {path.name for path in out.iterdir()}


def test_a_sweep_can_be_fitted_on_another_split(camvid, tmp_path):
    words = ("sweep", camvid, *TINY, "--over", "k=2", "--split", "val", "--fit-split")
    with pytest.raises(UsageError, match="trian"):
        call(*words, "trian", "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    code, text = call(*words, "train", "--out", tmp_path / "out")
    assert code == 0
    assert "fitted on train" in text
    assert len(list((tmp_path / "out" / "models").iterdir())) == 1


def test_failures_are_listed_and_the_code_is_3(camvid, tmp_path):
    code, text = call("sweep", camvid, *TINY, "--over", "k=2,1000", "--out", tmp_path / "out")
    assert code == 3
    assert "1 of 2 runs failed" in text
    assert "1000 categories" in text
    code, _ = call("sweep", camvid, *TINY, "--over", "k=1000,1001", "--out", tmp_path / "none")
    assert code == 1


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("--over", "kk=1,2"), "Unknown setting"),
        (("--over", "k=1,2", "--protocol", "half"), "Unknown protocol"),
        (("--over", "k=1,2", "--space", "voc21"), "label space"),
        (("--over", "refine=gided,bilinear"), "Did you mean 'guided'"),
    ],
)
def test_wrong_usage_is_found_before_any_work(camvid, tmp_path, words, reason):
    with pytest.raises(UsageError, match=reason):
        call("sweep", camvid, *TINY, *words, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_recipes_are_listed():
    code, text = call("reproduce")
    assert code == 0
    assert [line.split()[0] for line in text.splitlines()[1:]] == list(recipes.RECIPES)


def test_a_rehearsal_needs_no_data(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, text = call("reproduce", "dino-knn", "--dry-run")
    assert code == 0
    assert "dry run: planted images, random weights" in text
    assert not list(tmp_path.iterdir())


def test_a_recipe_runs_on_a_folder_of_data_sets(camvid, tmp_path, monkeypatch):
    monkeypatch.setattr("zerolabel.recipes.scale.find_weights", lambda entry: None)
    monkeypatch.setattr("zerolabel.recipes.scale.SIDE", 64)
    out = tmp_path / "out"
    monkeypatch.setenv("ZEROLABEL_DATA", str(camvid.parent))
    code, text = call("reproduce", "kmeans", "--small", "--out", out)
    assert code == 3
    assert "camvid11 test:24 (2)" in text
    assert "small: not the published setting" in text
    assert "The data set voc is not there" in text


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("reproduce", "kmeens"), "Did you mean 'kmeans'"),
        (("reproduce", "kmeans"), "Missing argument 'DATA'"),
        (("reproduce", "kmeans", "--small", "--dry-run"), "exclude each other"),
        (("reproduce", "kmeans", "--dry-run", "--page", "p.md"), "kmeans has none"),
        (("reproduce", "results", "--dry-run", "--page", "p.md"), "would not hold"),
    ],
)
def test_a_recipe_that_cannot_be_run_is_refused(words, reason, monkeypatch):
    monkeypatch.delenv("ZEROLABEL_DATA", raising=False)
    with pytest.raises(Exception, match=reason) as caught:
        call(*words)
    assert isinstance(caught.value, ZerolabelError) or caught.type.__name__ == "UsageError"


def test_a_page_needs_every_run(camvid, tmp_path):
    page = tmp_path / "page.md"
    plan = ("reproduce", "results", camvid / "nothing")
    (camvid / "nothing").mkdir()
    code, text = call(*plan, "--out", tmp_path / "out", "--page", page)
    assert code == 1
    assert "was not written" in text
    assert not page.exists()
