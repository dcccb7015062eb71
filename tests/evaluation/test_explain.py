import dataclasses

import numpy as np
import pytest

from zerolabel.evaluation.explain import explain
from zerolabel.evaluation.protocols import PROTOCOLS, score

# background, cat, dog by four clusters and none
COUNTS = np.array([[50, 2, 0, 9, 1], [3, 20, 1, 0, 2], [4, 0, 10, 8, 0]])
CENTRES = np.array([[0.0], [1], [3], [4]])  # the last is nearest to the third


def table(protocol="full", **options):
    """The rows by rule and value."""
    given = {"background": True, "centres": CENTRES} | options
    rows = explain({PROTOCOLS[protocol].geometry: COUNTS}, PROTOCOLS[protocol], **given)
    return {(row.rule, row.value): row for row in rows}


def test_the_first_row_is_the_protocol():
    row = next(iter(table("datus").values()))
    assert (row.rule, row.value, row.classes) == ("protocol", "datus", 3)
    assert row.scores.miou == score(COUNTS, PROTOCOLS["datus"]).miou


def test_every_row_changes_one_rule():
    for (rule, value), row in table().items():
        rules = PROTOCOLS["full"]
        if rule != "protocol":
            rules = dataclasses.replace(rules, **{rule: value})
        assert row.scores.miou == score(COUNTS, rules, centres=CENTRES).miou


def test_some_rows_by_hand():
    rows = table()
    # the fourth cluster, 9 and 8 pixels, goes with the dogs
    np.testing.assert_allclose(rows["matching", "nearest"].scores.iou, [50 / 69, 20 / 28, 18 / 32])
    assert rows["background", "ignored"].classes == 2
    # 62, 26 and 22 true pixels
    assert rows["protocol", "full"].floor.pixel_accuracy == 62 / 110
    assert rows["background", "ignored"].floor.miou == pytest.approx(26 / 48 / 2)


def test_categories_are_not_taken_for_classes_of_another_number():
    assert ("matching", "identity") not in table()  # 4 for 3
    assert ("matching", "identity") not in table("full-nobg")  # 4 for 2


def test_a_rule_that_leaves_no_pixel_has_no_row():
    nothing = np.array([[0, 0, 5], [0, 0, 3]])
    rows = explain({"full": nothing}, PROTOCOLS["full"], background=False)
    assert "ignore" not in [row.rule for row in rows]


def test_matching_on_train_needs_counts_there():
    assert ("match_on", "train") not in table()
    other = np.roll(COUNTS, 1, axis=0)
    row = table(sources={"full": other})["match_on", "train"]
    assert row.scores.matching.tolist() == [1, 2, 0, -1]


def test_named_categories_stay_those_of_their_class():
    named = COUNTS[:, [0, 1, 4]]  # nothing was named after the dogs
    rows = explain({"full": named}, PROTOCOLS["classes"], background=True)
    found = {(row.rule, row.value): row.scores for row in rows}
    assert found["protocol", "classes"].matching.tolist() == [0, 1]
    assert ("absent", "zero") in found
    assert ("matching", "hungarian") in found
    assert ("background", "ignored") not in found  # where category 0 would be the cats
