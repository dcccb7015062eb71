import numpy as np
import pytest
import torch
from PIL import Image

from zerolabel.data.folder import from_arrays
from zerolabel.data.transforms import load_batch, squash, to_tensor
from zerolabel.errors import ImageError
from zerolabel.types import Sample

RNG = np.random.default_rng(0)


def photo(rows, cols):
    return RNG.integers(0, 256, (rows, cols, 3), np.uint8)


def test_to_tensor_shares_memory_unless_it_is_read_only():
    image = photo(3, 5)
    tensor = to_tensor(image)
    assert (tensor.dtype, tuple(tensor.shape)) == (torch.uint8, (3, 3, 5))
    np.testing.assert_array_equal(tensor.permute(1, 2, 0).numpy(), image)
    assert tensor.data_ptr() == image.ctypes.data
    image.flags.writeable = False  # as Pillow's arrays are; torch would warn
    np.testing.assert_array_equal(to_tensor(image).permute(1, 2, 0).numpy(), image)
    assert to_tensor(image).data_ptr() != image.ctypes.data


@pytest.mark.parametrize("size", [(8, 8), (20, 7), (64, 96)])
def test_squash_is_pillows_bicubic_within_a_grey_level(size):
    # smooth: where Pillow clips overshoots between its two passes, noise would differ by more
    smooth = np.asarray(Image.fromarray(photo(5, 7)).resize((50, 40), Image.Resampling.BICUBIC))
    got = squash(smooth, size).permute(1, 2, 0).numpy().astype(int)
    expected = Image.fromarray(smooth).resize(size[::-1], Image.Resampling.BICUBIC)
    assert np.abs(got - np.asarray(expected)).max() <= 2
    assert np.abs(got - np.asarray(expected)).mean() < 0.3


@pytest.mark.parametrize("shape", [(1, 1), (1, 500), (500, 1), (3, 20_000)])
def test_squash_takes_any_shape_and_keeps_a_constant(shape):
    image = np.full((*shape, 3), 77, np.uint8)
    out = squash(image, (16, 24))
    assert tuple(out.shape) == (3, 16, 24)
    assert out.is_contiguous()
    assert (out == 77).all()


def broken(name):
    def load():
        raise ImageError(f"no {name}")

    return Sample(name, load, lambda: "x")


def test_a_batch_leaves_out_what_cannot_be_read():
    a, b = from_arrays("a", photo(9, 9)), from_arrays("b", photo(30, 12))
    images, kept, failures = load_batch([broken("0"), a, broken("1"), b], (16, 24))
    assert tuple(images.shape) == (2, 3, 16, 24)
    assert images.dtype == torch.uint8
    assert [sample.id for sample in kept] == ["a", "b"]
    assert failures == {"0": "no 0", "1": "no 1"}
    assert torch.equal(images[1], squash(b.load(), (16, 24)))


def test_a_batch_of_nothing_readable_is_empty():
    images, kept, failures = load_batch([broken("0")], (16, 24))
    assert tuple(images.shape) == (0, 3, 16, 24)
    assert (kept, failures) == ([], {"0": "no 0"})
