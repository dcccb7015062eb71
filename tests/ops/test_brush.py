import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from reference.exports import pack_brush, read_brush

from zerolabel.ops.brush import pack
from zerolabel.ops.rle import encode

SHAPES = hnp.array_shapes(min_dims=2, max_dims=2, max_side=7)


@given(ids=hnp.arrays(np.int32, SHAPES, elements=st.integers(-1, 1)), grain=st.integers(1, 9))
@settings(deadline=None, max_examples=100)
def test_a_stream_holds_the_mask(ids, grain):
    ids = np.kron(ids, np.ones((1, grain), np.int32))
    for region, packed in enumerate(pack(encode(ids, 2, order="C"))):
        assert packed.dtype == np.uint8
        values = np.array(read_brush(packed.tolist())).reshape(*ids.shape, 4)
        np.testing.assert_array_equal(
            values, np.where(ids == region, 255, 0)[..., None] + 0 * values
        )
        assert packed.tolist() == pack_brush(ids == region)


@pytest.mark.parametrize("width", [1, 2, 3, 4, 5, 63, 64, 65, 16383, 16384, 16385, 40000])
def test_every_length_of_a_block(width):
    # four values for a pixel: blocks end at 8, 16, 256 and 65536 values
    ids = np.full((1, width + 3), -1)
    ids[0, :width] = 0
    [packed] = pack(encode(ids, 1, order="C"))
    values = read_brush(packed.tolist())
    assert values == 4 * width * [255] + 12 * [0]
    assert packed.tolist() == pack_brush(ids == 0)


def test_no_regions():
    assert pack([]) == []
