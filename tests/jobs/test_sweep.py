"""What --over means, and the cells it makes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zerolabel.errors import UsageError
from zerolabel.jobs.fit import Options
from zerolabel.jobs.sweep import MOST, parse, sweep


@pytest.mark.parametrize(
    ("text", "name", "values"),
    [
        ("k=27:63:4", "k", [27, 31, 35, 39, 43, 47, 51, 55, 59, 63]),
        ("k=1:3", "k", [1, 2, 3]),
        ("k=5:5", "k", [5]),
        ("k=9:5:-2", "k", [9, 7, 5]),
        ("k=1:6:2", "k", [1, 3, 5]),
        ("sharpness=0.1:0.5:0.1", "sharpness", [0.1, 0.2, 0.3, 0.4, 0.5]),
        ("size=128,224", "size", [128, 224]),
        ("size=64x96,224", "size", ["64x96", "224"]),
        ("resolution=0.5,1", "resolution", [0.5, 1.0]),
        ("refine=guided, nearest", "refine", ["guided", "nearest"]),
        ("k=auto,5", "k", ["auto", "5"]),
        ("channel-order=rgb,bgr", "channel_order", ["rgb", "bgr"]),
        ("k=5,5", "k", [5]),
    ],
)
def test_values(text, name, values):
    found = parse(text)
    assert found == (name, values)
    assert [type(value) for value in found[1]] == [type(value) for value in values]


@pytest.mark.parametrize(
    "text",
    ["k", "k=", "=3", "k=1:", "k=1:5:0", "k=5:1", "k=1:2:3:4", "k=a:b", "k=1,,2", "k=1:9e9", "k=:"],
)
def test_a_text_that_cannot_be_read_is_wrong_usage(text):
    with pytest.raises(UsageError, match="START:STOP:STEP"):
        parse(text)


@given(st.integers(-50, 50), st.integers(0, 40), st.integers(1, 9))
def test_a_range_holds_its_start_and_never_passes_its_stop(start, length, step):
    _, values = parse(f"k={start}:{start + length}:{step}")
    assert values == list(range(start, start + length + 1, step))


def test_every_combination_and_seed_is_a_cell():
    options = Options(method="kmeans", backbone="filterbank", split="val", settings={"seed": 4})
    made = sweep(
        "camvid", options, over=["k=3:5", "preset=default,protocol"], seeds=2, protocol="full"
    )
    facts = {(cell.settings["k"], cell.preset, cell.seed) for cell in made.cells}
    assert facts == {(k, p, s) for k in (3, 4, 5) for p in ("default", "protocol") for s in (4, 5)}
    assert len({cell.name for cell in made.cells}) == len(made.cells) == 12
    assert made.x == "k"
    shared = {(cell.split, cell.backbone, cell.method, cell.protocol) for cell in made.cells}
    assert shared == {("val", "filterbank", "kmeans", "full")}
    assert all("seed" not in cell.settings for cell in made.cells)


def test_all_cells_are_fitted_on_the_split_that_was_named():
    options = Options(method="kmeans", split="val")
    for train in ("train", None):
        made = sweep("camvid", options, over=["k=3:5"], seeds=1, protocol="full", train=train)
        assert {(cell.train, cell.split) for cell in made.cells} == {(train, "val")}


@pytest.mark.parametrize(
    ("over", "seeds", "words"),
    [
        (["sharpnes=1,2"], 1, "Did you mean 'sharpness'"),
        (["seed=0,1"], 1, "--seeds"),
        (["k=1,2", "k=3"], 1, "twice"),
        (["k=1:100", "sharpness=1:100"], 1, f"at most {MOST}"),
        (["k=1,2"], 0, "one seed"),
        ([], 1, "one --over"),
    ],
)
def test_a_sweep_that_cannot_be_is_refused(over, seeds, words):
    with pytest.raises(UsageError, match=words):
        sweep("camvid", Options(method="kmeans"), over=over, seeds=seeds, protocol="full")
