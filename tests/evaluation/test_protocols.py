import dataclasses
import typing

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zerolabel.errors import UsageError
from zerolabel.evaluation.confusion import ABSENT, scores
from zerolabel.evaluation.protocol import Protocol
from zerolabel.evaluation.protocols import PROTOCOLS, score, settle
from zerolabel.ops.matching import MATCHINGS

# background, cat, dog by four clusters and none
COUNTS = np.array([[50, 2, 0, 9, 1], [3, 20, 1, 0, 2], [4, 0, 10, 8, 0]])
MASKS = [name for name, rules in PROTOCOLS.items() if rules.judges == "masks"]
CHOICES = {
    name: typing.get_args(kind)
    for name, kind in typing.get_type_hints(Protocol).items()
    if typing.get_origin(kind) is typing.Literal
}


@pytest.mark.parametrize("name", PROTOCOLS)
def test_every_protocol_is_whole(name):
    protocol = PROTOCOLS[name]
    assert protocol.id == name
    assert protocol.matching in MATCHINGS or protocol.judges != "masks"
    for field, choices in CHOICES.items():
        assert getattr(protocol, field) in choices
    assert protocol.description.endswith(".")
    assert ". " not in protocol.description, "one sentence"


def test_the_rules_for_absent_classes_are_those_that_exist():
    assert set(CHOICES["absent"]) == set(ABSENT)


def test_protocols_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        PROTOCOLS["full"].matching = "majority"


def test_no_two_protocols_of_masks_have_the_same_rules():
    rules = [dataclasses.astuple(PROTOCOLS[name])[2:] for name in MASKS]
    assert len(set(rules)) == len(rules)


def test_full_counts_everything():
    found = score(COUNTS, PROTOCOLS["full"])
    assert found.matching.tolist() == [0, 1, 2, -1]
    np.testing.assert_allclose(found.iou, [50 / 69, 20 / 28, 10 / 23])
    assert found.pixels.sum() == COUNTS.sum()


def test_full_nobg_forgets_the_background_before_matching():
    found = score(COUNTS, PROTOCOLS["full-nobg"])
    assert found.matching.tolist() == [-1, 0, 1, -1]
    np.testing.assert_allclose(found.iou, [20 / 26, 10 / 23])
    assert found.pixels.tolist() == [26, 22]


def test_datus_drops_what_has_no_class():
    found = score(COUNTS, PROTOCOLS["datus"])
    np.testing.assert_allclose(found.iou, [50 / 59, 20 / 26, 10 / 15])
    assert found.pixels.sum() == COUNTS[:, :3].sum()
    assert "optimistic" in PROTOCOLS["datus"].description


def test_datus_and_full_agree_when_every_pixel_has_a_matched_cluster():
    counts = np.hstack([COUNTS[:, :3], np.zeros((3, 1), np.int64)])
    assert score(counts, PROTOCOLS["datus"]).miou == score(counts, PROTOCOLS["full"]).miou


def test_full_is_the_default_of_scores():
    assert score(COUNTS, PROTOCOLS["full"]).miou == scores(COUNTS).miou


def test_full_train_matches_on_other_counts():
    other = np.roll(COUNTS, 1, axis=0)
    found = score(COUNTS, PROTOCOLS["full-train"], source=other)
    assert found.matching.tolist() == [1, 2, 0, -1]
    np.testing.assert_allclose(found.iou[0], 0 / (62 + 11))


def test_maskclip_and_reclip_know_the_classes_and_differ_in_the_absent_ones():
    # background, cat, dog and cow, which is neither true nor predicted; three categories
    counts = np.array([[9, 9, 9, 9], [20, 3, 0, 2], [4, 10, 0, 0], [0, 0, 0, 0]])
    clip, reclip = (score(counts, PROTOCOLS[name]) for name in ("maskclip", "reclip"))
    np.testing.assert_allclose(clip.iou, [20 / 29, 10 / 17, np.nan])
    assert clip.miou == pytest.approx((20 / 29 + 10 / 17) / 2)
    assert reclip.miou == pytest.approx((20 / 29 + 10 / 17) / 3)
    assert clip.pixel_accuracy == reclip.pixel_accuracy == 30 / 39


def test_classes_are_scored_as_they_are_named_with_the_background():
    counts = np.array([[1, 9, 0, 3], [8, 2, 0, 0], [0, 0, 0, 4]])
    found = score(counts, PROTOCOLS["classes"])
    assert found.matching.tolist() == [0, 1, 2]
    np.testing.assert_allclose(found.iou, [1 / 21, 2 / 19, 0])
    assert found.pixel_accuracy == 3 / 27
    assert score(counts, PROTOCOLS["full"]).pixel_accuracy == 17 / 27  # matching would undo it


@given(st.lists(st.integers(0, 99), min_size=12, max_size=12))
def test_matching_never_lowers_the_pixel_accuracy_of_named_classes(values):
    counts = np.array(values).reshape(3, 4) + np.eye(3, 4, dtype=np.int64)
    full, named = (score(counts, PROTOCOLS[name]) for name in ("full", "classes"))
    assert full.pixel_accuracy >= named.pixel_accuracy


def test_every_named_category_needs_a_class():
    with pytest.raises(UsageError, match=r"expected 3 categories.*found 4.*that matches"):
        score(COUNTS, PROTOCOLS["classes"])


def test_classes_that_nothing_was_named_after_are_missed():
    found = score(COUNTS[:, [0, 1, 4]], PROTOCOLS["classes"])
    assert found.matching.tolist() == [0, 1]
    np.testing.assert_allclose(found.iou, [50 / 60, 20 / 27, 0])


@pytest.mark.parametrize("k", [1, 4])
def test_without_the_background_known_classes_need_a_category_each(k):
    with pytest.raises(UsageError, match=rf"expected 2 categories.*found {k}"):
        score(COUNTS[:, : k + 1], PROTOCOLS["reclip"])


def test_maskcontrast_matches_on_iou_and_counts_absent_classes():
    counts = np.array([[30, 20, 0, 10], [10, 0, 0, 0], [0, 5, 5, 0], [0, 0, 0, 0]])
    found = score(counts, PROTOCOLS["maskcontrast"])
    assert found.matching.tolist() == [1, 0, 2]
    assert found.miou == pytest.approx((20 / 65 + 10 / 40 + 5 / 10 + 0) / 4)


def test_over_clustering_uses_every_cluster():
    found = score(COUNTS, PROTOCOLS["over-clustering"])
    assert found.matching.tolist() == [0, 1, 2, 0]
    assert score(COUNTS, PROTOCOLS["over-clustering-iou"]).matching.tolist() == [0, 1, 2, 2]


def test_ignoring_the_only_class_is_refused():
    with pytest.raises(UsageError, match="Use the protocol full"):
        score(np.array([[3, 4]]), PROTOCOLS["full-nobg"])


def test_a_protocol_of_attention_scores_no_masks():
    with pytest.raises(UsageError, match="jaccard judges attention, not masks"):
        score(COUNTS, PROTOCOLS["jaccard"])


def test_a_background_that_is_not_there_can_only_be_left_out_where_names_are_known():
    with pytest.raises(UsageError, match="found 'sky'"):
        settle(PROTOCOLS["full-nobg"], ["sky", "cat"])
    assert settle(PROTOCOLS["reclip"], ["road", "sky"]).first_class == 0
    assert settle(PROTOCOLS["reclip"], ["background", "sky"]).first_class == 1
    assert settle(PROTOCOLS["full"], ["sky", "cat"]) is PROTOCOLS["full"]
