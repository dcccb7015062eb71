import numpy as np
import pytest

from zerolabel.errors import UsageError
from zerolabel.evaluation.confusion import scores
from zerolabel.evaluation.protocols import PROTOCOLS, score
from zerolabel.ops.matching import MATCHINGS

# background, cat, dog by four clusters and none
COUNTS = np.array([[50, 2, 0, 9, 1], [3, 20, 1, 0, 2], [4, 0, 10, 8, 0]])


@pytest.mark.parametrize("name", PROTOCOLS)
def test_every_protocol_is_whole(name):
    protocol = PROTOCOLS[name]
    assert protocol.id == name
    assert (protocol.matching in MATCHINGS) == (protocol.judges == "masks")
    assert protocol.description.endswith(".")
    assert ". " not in protocol.description, "one sentence"


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


def test_ignoring_the_only_class_is_refused():
    with pytest.raises(UsageError, match="Use the protocol full"):
        score(np.array([[3, 4]]), PROTOCOLS["full-nobg"])


def test_a_protocol_of_attention_scores_no_masks():
    with pytest.raises(UsageError, match="jaccard judges attention, not masks"):
        score(COUNTS, PROTOCOLS["jaccard"])
