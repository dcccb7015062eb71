import json

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from zerolabel.cli.evaluate import evaluate
from zerolabel.cli.table import format_table
from zerolabel.errors import UsageError
from zerolabel.evaluation.protocols import PROTOCOLS


@pytest.fixture
def places(tmp_path):
    """A run and its data: class 0 found, class 1 half found, class 2 absent."""
    run, data = tmp_path / "run", tmp_path / "data"
    for folder in (run / "masks", data / "masks", data / "images"):
        folder.mkdir(parents=True)
    Image.new("RGB", (4, 1)).save(data / "images" / "a.jpg")
    Image.fromarray(np.array([[0, 0, 1, 1]], np.uint8)).save(data / "masks" / "a.png")
    Image.fromarray(np.array([[1, 1, 0, 255]], np.uint8)).save(run / "masks" / "a.png")
    (data / "classes.txt").write_text("background\ncat\nsign symbol\n")
    listed = [{"id": 0, "name": "x"}, {"id": 1, "name": "y"}]
    (run / "categories.json").write_text(json.dumps({"categories": listed}))
    return run, data


def invoke(run, data, *options):
    return CliRunner().invoke(evaluate, [str(run), "--data", str(data), *options])


def test_report(places):
    result = invoke(*places)
    assert result.exit_code == 0, result.output
    assert result.output.splitlines() == [
        "protocol full, data all, 1 of 1 images, K = 2, C = 3",
        "",
        "class          IoU    acc     F1  clusters",
        "background   100.0  100.0  100.0         1",
        "cat           50.0   50.0   66.7         0",
        "sign symbol      -      -      -         -",
        "",
        "mIoU 75.0   pixel accuracy 75.0   mean accuracy 75.0   mF1 83.3   (percent)",
    ]


def test_protocol_and_split_are_handed_on(places):
    result = invoke(*places, "--protocol", "datus", "--split", "all")
    assert "protocol datus" in result.output
    assert "mIoU 100.0" in result.output
    assert (places[0] / "evaluation-datus.json").exists()


def test_missing_masks_are_named(places):
    run, data = places
    for name in "bcdefgh":
        Image.new("RGB", (4, 1)).save(data / "images" / f"{name}.jpg")
        Image.new("L", (4, 1)).save(data / "masks" / f"{name}.png")
    lines = invoke(run, data).output.splitlines()
    assert "1 of 8 images" in lines[0]
    assert lines[1] == (
        "not scored, for want of a mask: b.jpg, c.jpg, d.jpg, e.jpg, f.jpg and 2 more"
    )


def test_errors_of_the_job_come_through(places):
    assert isinstance(invoke(*places, "--protocol", "fulll").exception, UsageError)


def test_wrong_usage():
    assert CliRunner().invoke(evaluate, ["nowhere"]).exit_code == 2


def test_help_names_every_protocol():
    text = CliRunner().invoke(evaluate, ["--help"]).output
    assert all(name in text for name in PROTOCOLS)


def test_tables_align_words_left_and_numbers_right():
    text = format_table(["what", "share"], [["a", "5.0%"], ["long word", "-"]])
    assert text == "what       share\na           5.0%\nlong word      -"


def test_a_table_without_rows_is_its_header():
    assert format_table(["a", "b"], []) == "a  b"


def test_rows_must_be_as_long_as_the_header():
    with pytest.raises(ValueError, match="shorter"):
        format_table(["a", "b"], [["1"]])
