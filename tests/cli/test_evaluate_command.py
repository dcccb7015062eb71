import json
import re
import shutil

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from scored_runs import says

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


def lines_of(result):
    """What a command printed, without its progress."""
    assert result.exit_code == 0, result.output
    progress = ("score: ", "distances: ", "bias: ")
    return [line for line in result.output.splitlines() if not line.startswith(progress)]


def test_report(places):
    assert lines_of(invoke(*places)) == [
        "protocol full, data all, 1 of 1 image, K = 2, C = 3, 1 seed",
        "",
        "class          IoU    acc     F1  clusters",
        "background   100.0  100.0  100.0         1",
        "cat           50.0   50.0   66.7         0",
        "sign symbol      -      -      -         -",
        "",
        "full, 1 image, K = 2, C = 3, 1 seed: mIoU 75.0   pixel accuracy 75.0   "
        "mean accuracy 75.0   mF1 83.3   (percent)",
        "full, 1 image, K = 2, C = 3, 1 seed: one category everywhere would score mIoU 25.0   "
        "pixel accuracy 50.0",
    ]


def test_protocol_and_split_are_handed_on(places):
    result = invoke(*places, "--protocol", "datus", "--split", "all")
    assert "protocol datus" in result.output
    assert "mIoU 100.0" in result.output
    assert (places[0] / "evaluation-datus.json").exists()


def test_a_published_label_space_is_handed_on(places):
    lines = lines_of(invoke(*places, "--space", "lip5"))
    assert lines[0] == "protocol full, data all (lip5), 1 of 1 image, K = 2, C = 6, 1 seed"
    assert (places[0] / "evaluation-full-lip5.json").exists()


def test_missing_masks_are_named(places):
    run, data = places
    for name in "bcdefgh":
        Image.new("RGB", (4, 1)).save(data / "images" / f"{name}.jpg")
        Image.new("L", (4, 1)).save(data / "masks" / f"{name}.png")
    lines = lines_of(invoke(run, data))
    assert "1 of 8 images" in lines[0]
    assert lines[1] == (
        "not scored, for want of a mask: b.jpg, c.jpg, d.jpg, e.jpg, f.jpg and 2 more"
    )


def test_masks_that_were_cropped_afterwards_are_told(places):
    lines = lines_of(invoke(*places, "--protocol", "picie-320"))
    assert lines[1].startswith("masks of the images' own size, cropped afterwards")


def test_several_seeds(places, tmp_path):
    run, data = places
    runs = [shutil.copytree(run, tmp_path / f"run{seed}") for seed in (0, 1)]
    Image.fromarray(np.array([[1, 1, 0, 0]], np.uint8)).save(runs[1] / "masks" / "a.png")
    for seed, place in enumerate(runs):
        says(place, seed=seed)
    options = [str(runs[1]), "--data", str(data), "--out", str(tmp_path / "means")]
    lines = lines_of(CliRunner().invoke(evaluate, [str(runs[0]), *options]))
    assert lines[0] == "protocol full, data all, 1 of 1 image, K = 2, C = 3, 2 seeds (0, 1)"
    assert lines[2].split() == (
        "run seed K mIoU pixel accuracy mean accuracy mF1".split()  # no table of classes
    )
    assert lines[3].split()[1:] == ["0", "2", "75.0", "75.0", "75.0", "83.3"]
    assert lines[4].split()[1:] == ["1", "2", "100.0", "100.0", "100.0", "100.0"]
    assert lines[6] == (
        "full, 1 image, K = 2, C = 3, 2 seeds (0, 1): mIoU 87.5 +- 17.7   "
        "pixel accuracy 87.5 +- 17.7   mean accuracy 87.5 +- 17.7   mF1 91.7 +- 11.8   (percent)"
    )
    assert (tmp_path / "means" / "evaluation-full.json").exists()


def test_explain_shows_each_rule_beside_the_protocol(places):
    lines = lines_of(invoke(*places, "--explain"))
    assert lines[0].startswith("protocol full, data all, 1 of 1 image")
    rows = {tuple(line.split()[:2]): line.split()[2:] for line in lines[3:] if line}
    assert rows["protocol", "full"] == ["3", "75.0", "-", "75.0", "-", "25.0"]
    assert rows["absent", "zero"] == ["3", "50.0", "-25.0", "75.0", "-", "16.7"]
    assert rows["ignore", "void-and-unlabelled"] == [
        "3",
        "100.0",
        "+25.0",
        "100.0",
        "+25.0",
        "25.0",
    ]
    assert rows["background", "ignored"] == ["2", "50.0", "-25.0", "50.0", "-25.0", "100.0"]
    assert (places[0] / "explain-full.json").exists()


def test_bias_shows_rivals_and_keeps_a_page(places):
    lines = lines_of(invoke(*places, "--bias"))
    assert lines[0].startswith("protocol full, data all, 1 of 1 image")
    assert lines[2].split() == "class right less rival strongest rival".split()
    assert any(line.startswith("class preference ") for line in lines)
    assert any(line.startswith("space preference ") for line in lines)
    assert (places[0] / "bias-full.html").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "Missing option '--data'"),
        (("RUN", "--data", "DATA", "--bias"), "take one RUN, found 2"),
        (("--data", "DATA", "--bias", "--explain"), "--bias goes with neither"),
        (("RUN", "--data", "DATA", "--explain"), "take one RUN, found 2"),
        (("RUN", "--data", "DATA", "--matching-run", "RUN"), "take one RUN, found 2"),
        (("--data", "DATA", "--out", "DATA"), "--out is for several RUNs"),
        (("--data", "DATA", "--k", "3"), "--k: for --protocol "),
        (("--protocol", "jaccard", "--explain"), "--explain: for --protocol of masks only"),
        (("--protocol", "jaccard", "--matching-run", "RUN"), "--matching-run: for --protocol of"),
        (("DATA/classes.txt", "--data", "DATA"), "takes a folder; .*classes.txt is a file"),
    ],
)
def test_words_that_do_not_belong_together(places, words, message):
    run, data = map(str, places)
    words = [word.replace("RUN", run).replace("DATA", data) for word in words]
    result = CliRunner().invoke(evaluate, [run, *words])
    assert result.exit_code == 2
    assert re.search(message, " ".join(result.output.split()))


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
