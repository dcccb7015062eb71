import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pycocotools import mask as oracle
from reference.exports import coco_counts, coco_string

from zerolabel.errors import UsageError
from zerolabel.ops.rle import compress, encode

# pycocotools 2.0.11 has not learned a keyword of numpy 2 yet
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
SHAPES = hnp.array_shapes(min_dims=2, max_dims=2, max_side=9)
IDS = hnp.arrays(np.int32, SHAPES, elements=st.integers(-1, 4))


@given(ids=IDS, grain=st.sampled_from([1, 40]))
@settings(deadline=None, max_examples=150)
def test_counts_and_strings_are_those_of_pycocotools(ids, grain):
    ids = np.kron(ids, np.ones((grain, 1), np.int32))  # long runs, with several characters each
    counts = encode(ids, 5, order="F")
    for region, (found, text) in enumerate(zip(counts, compress(counts), strict=True)):
        mask = np.asfortranarray(ids == region, np.uint8)
        assert found.tolist() == coco_counts(mask)
        assert text == coco_string(found.tolist())
        assert text.encode() == oracle.encode(mask)["counts"]
        size = list(ids.shape)
        np.testing.assert_array_equal(oracle.decode({"size": size, "counts": text}), mask)
        plain = oracle.frPyObjects({"size": size, "counts": found.tolist()}, *size)
        np.testing.assert_array_equal(oracle.decode(plain), mask)


@given(ids=IDS)
@settings(deadline=None, max_examples=50)
def test_rows_are_the_columns_of_the_transpose(ids):
    along = encode(ids, 5, order="C")
    down = encode(ids.T, 5, order="F")
    for one, other in zip(along, down, strict=True):
        np.testing.assert_array_equal(one, other)
        assert one.sum() == ids.size


def test_large_regions_need_many_characters():
    ids = np.kron(np.array([[0, 1, -1], [1, 0, 0]]), np.ones((700, 900), np.int64))
    for region, text in enumerate(compress(encode(ids, 2, order="F"))):
        assert text.encode() == oracle.encode(np.asfortranarray(ids == region, np.uint8))["counts"]
    counts = np.array([5, 2**40, 1, 2**40 - 17, 2**33])
    assert compress([counts]) == [coco_string(counts.tolist())]


def test_no_regions():
    assert encode(np.full((2, 3), -1), 0, order="F") == []
    assert compress([]) == []
    [empty] = encode(np.full((2, 3), -1), 1, order="F")
    assert empty.tolist() == [6]


@pytest.mark.parametrize("ids", [np.zeros(3, int), np.zeros((2, 2)), np.full((2, 2), 3)])
def test_what_is_no_map_of_ids_is_refused(ids):
    with pytest.raises(UsageError, match="below 3; found"):
        encode(ids, 3, order="F")
