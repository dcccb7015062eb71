"""Small copies of arrays that are mostly zero: what is kept, how exactly, and in how many bytes."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from zerolabel.ops.packing import bits_to_mask, pack, unpack

NORMAL, SUBNORMAL = 2.0**-11, 2.0**-25  # half a unit of half precision, relative and absolute


@st.composite
def arrays(draw):
    shape = draw(st.lists(st.integers(0, 5), min_size=2, max_size=4))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 999)))
    x = torch.randn(*shape, generator=generator)
    x *= 10.0 ** torch.randint(-9, 1, shape, generator=generator)
    x *= torch.rand(shape, generator=generator) < draw(st.sampled_from([0.0, 0.1, 0.6, 1.0]))
    return x * draw(st.sampled_from([1e-40, 1e-30, 1e-3, 1.0, 1e30]))


@given(arrays())
@settings(max_examples=120, deadline=None)
def test_nothing_is_lost_but_digits(x):
    packed = pack(x)
    found = unpack(packed)
    assert found.shape == x.shape
    assert found.dtype == torch.float32
    assert packed.shape == tuple(x.shape[1:])
    rows, back = x.double().flatten(1).numpy(), found.double().flatten(1).numpy()
    for row, own in zip(rows, back, strict=True):
        most = np.abs(row).max(initial=0)
        # scales below 1.2e-38 are subnormal themselves
        allowed = np.maximum(NORMAL * np.abs(row), SUBNORMAL * max(most, 1.2e-38)) * 1.001 + 2e-45
        assert (np.abs(row - own) <= allowed).all()
        assert (own[row == 0] == 0).all()
        assert (np.sign(own) * np.sign(row) >= 0).all()
        kept = np.abs(row) > 1.001 * SUBNORMAL * max(most, 1.2e-38)
        if most > 1e-37:
            assert (own[kept] != 0).all()


@given(arrays())
@settings(max_examples=30, deadline=None)
def test_the_bytes_are_those_promised(x):
    packed, count = pack(x), int(np.prod(x.shape[1:]))
    assert packed.bits.shape == (len(x), -(-count // 8))
    assert (packed.bits.dtype, packed.values.dtype) == (np.uint8, np.float16)
    assert packed.scales.shape == (len(x),)
    assert len(packed.values) == int((unpack(packed) != 0).sum()) <= int((x != 0).sum())
    assert (packed.values != 0).all()
    assert np.array_equal(bits_to_mask(packed.bits, count), (unpack(packed) != 0).flatten(1))


def test_an_image_does_not_depend_on_the_others():
    generator = torch.Generator().manual_seed(0)
    x = (
        torch.randn(4, 3, 5, generator=generator).relu()
        * torch.tensor([1.0, 1e-6, 0.0, 1e6])[:, None, None]
    )
    together = unpack(pack(x))
    for image, own in zip(x, together, strict=True):
        assert torch.equal(unpack(pack(image[None]))[0], own)
        torch.testing.assert_close(own, image, rtol=1e-3, atol=0)
    assert not together[2].any()


def test_what_was_unpacked_packs_the_same():
    x = unpack(pack(torch.randn(3, 40, generator=torch.Generator().manual_seed(1)).relu()))
    assert torch.equal(unpack(pack(x)), x)


def test_the_first_bit_is_the_highest():
    packed = pack(torch.tensor([[3.0, 0, 0, 0, 0, 0, 0, 0, 0, -1.5]]))
    assert packed.bits.tolist() == [[0b10000000, 0b01000000]]
    assert packed.values.tolist() == [1.0, -0.5]
    assert packed.scales.tolist() == [3.0]


@pytest.mark.parametrize("kind", [torch.float64, torch.float16])
def test_other_floats_and_graphs(kind):
    x = torch.tensor([[0.25, 0.0, 1.0]], dtype=kind, requires_grad=True)
    assert unpack(pack(x)).tolist() == [[0.25, 0.0, 1.0]]


def test_below_the_smallest_half_is_zero():
    found = unpack(pack(torch.tensor([[1.0, 3.1e-8, 2.9e-8]])))
    assert found[0, 1] == pytest.approx(2**-24)
    assert found[0, 2] == 0
