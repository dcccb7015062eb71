import json

import numpy as np
import pytest
from click.testing import CliRunner
from reference import outlines
from scored_runs import says, write_run

from zerolabel.cli.main import cli
from zerolabel.data.benchmarks import open_dataset
from zerolabel.data.planted import plant
from zerolabel.errors import DataError, UsageError
from zerolabel.jobs.scoring.regions import evaluate_regions

SIZE = (24, 32)


@pytest.fixture
def data(tmp_path):
    return plant("bsds500", tmp_path / "data", images=3, size=SIZE, splits=["test"])


@pytest.fixture
def truths(data):
    return {
        s.id.rsplit(".", 1)[0]: s.load_regions() for s in open_dataset(data, split="test").samples
    }


@pytest.fixture
def fine(tmp_path, truths):
    """A run that has the regions of the first annotator."""
    return write_run(tmp_path / "fine", {k: maps[0] for k, maps in truths.items()}, categories=7)


@pytest.fixture
def coarse(tmp_path, truths):
    """A run that has those of the second."""
    return write_run(tmp_path / "coarse", {k: maps[1] for k, maps in truths.items()}, categories=7)


def test_numbers_equal_the_measures(fine, data, truths):
    result = evaluate_regions([fine], data)
    pieces = {name: maps[0] for name, maps in truths.items()}
    expected = np.mean([[outlines.covering(pieces[n], t) for t in truths[n]] for n in truths])
    level = result["levels"][0]
    assert level["covering"] == pytest.approx(expected)
    assert result["covering"] == {
        "ods": level["covering"],
        "ois": level["covering"],
        "level": 0,
        "best": level["covering"],
    }
    assert (level["recall"], level["precision"]) == (1.0, 1.0)
    assert set(level) == {
        "run",
        "clusters",
        "made",
        "regions",
        "covering",
        "pri",
        "vi",
        "f",
        "precision",
        "recall",
    }


def test_result_says_what_was_scored_and_is_kept(fine, data):
    result = evaluate_regions([str(fine)], str(data))
    assert json.loads((fine / "evaluation-bsds.json").read_text()) == result
    assert (result["protocol"]["id"], result["protocol"]["judges"]) == ("bsds", "regions")
    assert (result["dataset"], result["split"], result["images"]) == ("bsds500", "test", 3)
    assert (result["annotators"], result["labelled_images"], result["missing"]) == (6, 3, [])
    assert len(result["data_hash"]) == 64
    assert result["run"] is None
    assert set(result["references"]) == {"whole image", "grid 4x4", "annotators"}
    assert [sorted(image) for image in result["per_image"]] == [
        ["covering", "f", "id", "pri", "vi"]
    ] * 3


def test_levels_are_compared(fine, coarse, data, tmp_path):
    result = evaluate_regions([fine, coarse], data, out=tmp_path / "both")
    assert [level["run"] for level in result["levels"]] == [str(fine), str(coarse)]
    for name in ("covering", "pri", "vi", "f"):
        each = [level[name] for level in result["levels"]]
        best = min if name == "vi" else max
        assert result[name]["ods"] == best(each) == each[result[name]["level"]]
        assert best(result[name]["ods"], result[name]["ois"]) == result[name]["ois"]
    assert result["covering"]["best"] == 1.0  # every region of each annotator is one of a level
    assert (tmp_path / "both" / "evaluation-bsds.json").is_file()
    assert not (fine / "evaluation-bsds.json").exists()
    alone = evaluate_regions([coarse], data)
    assert alone["levels"][0] == result["levels"][1]


def test_references_know_nothing(fine, data):
    found = evaluate_regions([fine], data)["references"]
    whole, grid = found["whole image"], found["grid 4x4"]
    assert (whole["f"], whole["recall"]) == (0, 0)
    assert whole["covering"] < evaluate_regions([fine], data)["covering"]["ods"]
    assert 0 < grid["covering"] < 1
    assert grid["vi"] > whole["vi"]


def test_regions_of_one_category_are_pieces(tmp_path, data, truths):
    stripes = np.zeros(SIZE, np.uint8)
    stripes[:, ::2] = 1
    corner = np.zeros(SIZE, np.uint8)
    corner[0, 0] = corner[1, 1] = 1  # one piece, over the corner
    names = sorted(truths)
    run = write_run(tmp_path / "run", dict(zip(names, [stripes, corner, corner * 0], strict=True)))
    assert evaluate_regions([run], data)["levels"][0]["regions"] == (32 + 2 + 1) / 3


def test_an_image_without_a_mask_in_every_run_is_missing(fine, coarse, data, truths):
    (coarse / "masks" / f"{sorted(truths)[1]}.png").unlink()
    result = evaluate_regions([fine, coarse], data)
    assert result["images"] == len(result["per_image"]) == 2
    assert result["missing"] == [f"{sorted(truths)[1]}.jpg"]


def test_bad_input(fine, data, tmp_path, truths):
    with pytest.raises(DataError, match="expected BSDS500"):
        evaluate_regions([fine], plant("voc", tmp_path / "voc", images=1), split="val")
    with pytest.raises(DataError, match="found no data set"):
        evaluate_regions([fine], tmp_path / "fine")
    with pytest.raises(UsageError, match="'val'"):
        evaluate_regions([fine], data, split="val")
    small = write_run(tmp_path / "small", {k: np.zeros((9, 9), np.uint8) for k in truths})
    with pytest.raises(DataError, match=r"jpg: .* expected .* \(24, 32\), found \(9, 9\)"):
        evaluate_regions([small], data)
    other = {name: maps[0] for name, maps in truths.items() if name == sorted(truths)[0]}
    first = write_run(tmp_path / "first", other, categories=7)
    last = write_run(tmp_path / "last", {sorted(truths)[2]: np.zeros(SIZE)}, categories=7)
    with pytest.raises(DataError, match="has a mask in all of"):
        evaluate_regions([first, last], data)


def test_a_run_through_another_geometry_is_refused(fine, data):
    says(fine)
    facts = json.loads((fine / "run.json").read_text())
    facts["job"]["geometry"] = "picie-320"
    (fine / "run.json").write_text(json.dumps(facts))
    with pytest.raises(UsageError, match="picie-320"):
        evaluate_regions([fine], data)


def test_command(fine, coarse, data):
    run = CliRunner().invoke
    words = ["evaluate", str(fine), str(coarse), "--data", str(data), "--protocol", "bsds"]
    found = run(cli, words)
    assert found.exit_code == 0, found.output
    assert "bsds500 test, 3 of 3 images, 6 annotators" in found.output
    for line in ("whole image", "grid 4x4", "annotators", "covering", "ODS is of"):
        assert line in found.output
    assert (fine / "evaluation-bsds.json").is_file()
    single = run(cli, [words[0], words[1], *words[3:]])
    assert "ODS" not in single.output
    lacking = run(cli, ["evaluate", str(fine), "--protocol", "bsds"])
    assert lacking.exit_code == 2
    assert "--data" in lacking.output
    odd = run(cli, [*words, "--space", "voc20"])
    assert odd.exit_code == 2
    assert "--space" in odd.output
