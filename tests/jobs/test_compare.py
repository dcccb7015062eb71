import csv
import json
import statistics

import pytest
from reference.evaluation_files import evaluation, leave, masks_made_elsewhere

from zerolabel.errors import DataError, UsageError
from zerolabel.evaluation.published import COLUMNS
from zerolabel.jobs.compare import compare
from zerolabel.jobs.comparing.page import confusions


@pytest.fixture
def add(tmp_path):
    return lambda name, *args, **kinds: leave(tmp_path, name, evaluation(*args, **kinds))


def only(table):
    """The one column of a table."""
    (column,) = table.columns
    return column


def test_runs_that_differ_in_their_seed_are_one_row(add):
    values = [0.30, 0.34, 0.32]
    runs = [add(f"a{s}", v, seed=s) for s, v in enumerate(values)]
    runs += [add(f"b{s}", v, seed=s, run={"method": "datus"}) for s, v in enumerate([0.4, 0.5])]
    table = compare(runs).table
    assert [row.label for row in table.rows] == ["kmeans filterbank", "datus filterbank"]
    column = only(table)
    cell = table.rows[0].cells[column]
    assert cell.seeds == [0, 1, 2]
    spread = cell.spread("miou")
    assert spread.n == 3
    assert spread.mean == pytest.approx(statistics.fmean(values))
    assert spread.std == pytest.approx(statistics.stdev(values))
    assert [found.mean for found in cell.classes()] == pytest.approx([0.32, 0.32])


@pytest.mark.parametrize(
    ("change", "label"),
    [
        ({"backbone": "embedded"}, "kmeans embedded"),
        ({"config": {"refine": "nearest"}}, "kmeans filterbank, refine=nearest"),
        ({"config": {"k": 7}}, "kmeans filterbank, k=7"),
        ({"config": {"size": [32, 48]}}, "kmeans filterbank, size=32x48"),
        ({"geometry": "picie-320"}, "kmeans filterbank, geometry=picie-320"),
        ({"weights": "other"}, "kmeans filterbank (b)"),
    ],
)
def test_every_other_setting_makes_a_row_of_its_own(add, change, label):
    table = compare([add("a", seed=0), add("b", seed=1, run=change)]).table
    assert len(table.rows) == 2
    assert table.rows[1].label == label
    assert len({row.label for row in table.rows}) == 2


def test_a_seed_that_is_there_already_and_masks_made_elsewhere_have_rows_of_their_own(
    add, tmp_path
):
    runs = [add("a", 0.3, seed=0), add("again", 0.4, seed=0)]
    foreign = masks_made_elsewhere(evaluation(0.5))
    runs += [leave(tmp_path, name, foreign) for name in ("their-0", "their-1")]
    table = compare([*runs, runs[0]]).table
    assert [row.label for row in table.rows] == [
        "kmeans filterbank (a)",
        "kmeans filterbank (again)",
        "their-0",
        "their-1",
    ]
    column = only(table)
    assert [len(row.cells[column].scores) for row in table.rows] == [1, 1, 1, 1]
    assert table.rows[2].cells[column].seeds == []


def test_as_many_categories_as_classes_is_one_setting_over_data_sets(add):
    other = {"dataset": "camvid", "space": "camvid11", "classes": ("a", "b", "c")}
    runs = [add("v", seed=0), add("c", seed=0, **other, run={"config": {"k": 3}})]
    table = compare(runs).table
    assert len(table.rows) == 1
    assert len(table.columns) == 2
    different = add("d", seed=0, **other, run={"config": {"k": 4}})
    assert len(compare([runs[0], different]).table.rows) == 2


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"data_hash": "bb"}, "another list of images"),
        ({"images": 3, "data_hash": "bb", "missing": ["x.jpg"]}, "images 3 instead of 4"),
        ({"split": "train"}, "split train instead of val"),
        ({"space": "voc20"}, "space voc20 instead of voc21"),
        ({"rules": {"id": "datus"}}, "protocol datus instead of full"),
        ({"rules": {"absent": "zero"}}, "other rules under one protocol id"),
        ({"matched_on": {"split": "train"}}, "other rules under one protocol id"),
        ({"classes": ("sky", "sea")}, "other classes"),
    ],
)
def test_what_was_scored_otherwise_is_another_column_and_a_note_says_why(add, change, word):
    result = compare([add("a", seed=0), add("b", seed=1, **change)])
    table = result.table
    assert len(table.columns) == 2
    assert [len(row.cells) for row in table.rows] == [2]
    assert any(word in note and "cannot be compared" in note for note in result.notes)
    assert any("no mask for 1 labelled" in n for n in result.notes) == ("missing" in change)


def test_the_wording_of_a_protocol_does_not_part_columns(add):
    runs = [add("a", seed=0), add("b", seed=1, rules={"description": "other words"})]
    assert len(compare(runs).table.columns) == 1


def test_a_difference_is_one_if_larger_than_both_deviations_together(add):
    std = statistics.stdev([0.0, 0.02])

    def runs(name, mean, method):
        both = enumerate([mean - 0.01, mean + 0.01])
        return [add(f"{name}{s}", v, seed=s, run={"method": method}) for s, v in both]

    first = runs("a", 0.3, "kmeans")
    near, far = 0.3 + 2 * std - 0.001, 0.3 + 2 * std + 0.001
    single = [add("d", 0.9, run={"method": "reclip"})]
    found = compare([*first, *runs("b", near, "datus"), *runs("c", far, "acseg"), *single]).table
    column = only(found)
    differences = [found.difference(row, column, "miou") for row in found.rows]
    assert differences[0] is None
    assert [d.real for d in differences[1:]] == [False, True, None]
    assert differences[2].value == pytest.approx(far - 0.3)
    assert [d.words[-2:] for d in differences[2:]] == [" *", " ?"]
    best = compare([*first, *runs("c", far, "acseg")], against="best").table
    assert best.reference(column).label == "acseg filterbank"
    assert best.difference(best.rows[0], column, "miou").value == pytest.approx(0.3 - far)


def test_confusions_are_shares_of_true_pixels_by_matched_class(tmp_path):
    swapped = evaluation(counts=[[6, 1, 1], [2, 6, 0]])
    swapped["matching"][0]["class"], swapped["matching"][1]["class"] = 1, None
    table = compare([leave(tmp_path, "a", swapped)]).table
    score = table.rows[0].cells[only(table)].scores[0]
    assert confusions(score).tolist() == [[0, 6 / 8, 2 / 8], [0, 2 / 8, 6 / 8]]


def test_csv_and_json_hold_every_number_with_what_belongs_to_it(add, tmp_path):
    runs = [add(f"a{s}", 0.3 + s / 50, seed=s) for s in (0, 1)]
    runs += [add("b", 0.5, run={"method": "datus"})]
    out = tmp_path / "out"
    result = compare(runs, out)
    assert {path.name for path in result.files} == {"compare.csv", "compare.json", "index.html"}
    with open(out / "compare.csv", newline="") as file:
        first, second = csv.DictReader(file)
    facts = ("protocol", "dataset", "split", "space", "images", "K", "C", "n", "seeds")
    assert [first[name] for name in facts] == "full voc val voc21 4 2 2 2".split() + ["0 1"]
    assert float(first["miou"]) == pytest.approx(0.31)
    assert first["miou_difference"] == ""
    assert float(second["miou_difference"]) == pytest.approx(0.19)
    assert second["miou_differs"] == ""  # one seed
    kept = json.loads((out / "compare.json").read_text())
    assert kept["scores"][0]["miou_std"] == pytest.approx(0.02 / 2**0.5)
    assert kept["scores"][0]["settings"]["k"] == "C"
    assert [entry["name"] for entry in kept["scores"][1]["per_class"]] == ["sky", "road"]
    html = (out / "index.html").read_text()
    assert html.count('class="above"') == 3  # a map of confusions for every run
    for words in ("31.0 ± 1.4", "label space voc21, 4 images, C = 2", "pixel accuracy 50.0"):
        assert words in html


def test_printed_numbers_stand_below_only_where_all_rules_agree(add, tmp_path):
    sheet = tmp_path / "printed.csv"
    lines = [
        "p,T1,Fits,ViT,voc,voc21,full,miou,42.5,",
        "p,T1,Space,ViT,voc,voc20,full,miou,61.0,",
        "p,T1,Protocol,ViT,voc,voc21,picie-320,miou,44.0,",
    ]
    sheet.write_text("\n".join([",".join(COLUMNS), *lines]))
    result = compare([add("a")], tmp_path / "out", published=sheet)
    assert [e.method for e in result.published[only(result.table)]] == ["Fits"]
    html = (tmp_path / "out" / "index.html").read_text()
    assert "published, other data" in html
    assert "Fits" in html
    assert "Protocol" not in html
    assert len(json.loads((tmp_path / "out" / "compare.json").read_text())["published"]) == 1


def test_what_cannot_be_used_is_left_out_with_a_note(add, tmp_path):
    run = add("a")
    leave(tmp_path, "a", {"something": "else"})
    leave(tmp_path, "a", evaluation(rules={"id": "knn", "judges": "features"}))
    old = evaluation()
    del old["counts"], old["space"]
    leave(tmp_path, "a", old)
    empty = tmp_path / "empty"
    empty.mkdir()
    result = compare([run, empty])
    assert len(result.table.rows) == 1
    for words in ("not written by", "judges features", "lacks counts, space", "no score to show"):
        assert any(words in note for note in result.notes), words


def test_scores_can_be_chosen_and_nothing_left_is_an_error(add, tmp_path):
    run = add("a")
    leave(tmp_path, "a", evaluation(rules={"id": "datus"}, split="train"))
    assert len(compare([run]).table.columns) == 2
    assert only(compare([run], protocol="datus").table).protocol == "datus"
    assert only(compare([run], split="val").table).split == "val"
    with pytest.raises(DataError, match="no score with space voc20 in"):
        compare([run], space="voc20")


def test_wrong_words_are_refused(add, tmp_path):
    run = add("a")
    with pytest.raises(UsageError, match="first or best"):
        compare([run], against="worst")
    with pytest.raises(UsageError, match="--data ROOT and --out"):
        compare([run], tmp_path / "out", grid=2)
    with pytest.raises(UsageError, match="--grid N with --seed"):
        compare([run], tmp_path / "out", seed=1)
