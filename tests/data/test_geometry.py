"""Sizes and crops against a slow, obvious reading of the published code."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from zerolabel.data.folder import from_arrays
from zerolabel.data.geometry import GEOMETRIES, through, view_image, view_label
from zerolabel.types import Sample

SIZES = [
    (375, 500),
    (500, 375),
    (321, 481),
    (320, 320),
    (97, 640),
    (640, 481),
    (50, 30),
    (361, 363),
]
NAMES = {"bilinear": Image.Resampling.BILINEAR, "nearest": Image.Resampling.NEAREST}


def picture(size, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (*size, 3)).astype(np.uint8)


def crop_of_picie(array, method):
    """Shorter side to 320, then the middle: int(round((w - 320) / 2)) from the left."""
    image = Image.fromarray(array)
    w, h = image.size
    w, h = (320, int(320 * h / w)) if w <= h else (int(320 * w / h), 320)
    image = image.resize((w, h), method)
    left, top = int(round((w - 320) / 2)), int(round((h - 320) / 2))
    return np.asarray(image.crop((left, top, left + 320, top + 320)))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("name", "method"), [("picie-320", "bilinear"), ("stego-320", "nearest")])
def test_crops_of_picie_and_stego(size, name, method):
    geometry = GEOMETRIES[name]
    image = picture(size)
    found = view_image(image, geometry)
    np.testing.assert_array_equal(found, crop_of_picie(image, NAMES[method]))
    label = image[..., 0]
    expected = crop_of_picie(label, Image.Resampling.NEAREST)
    np.testing.assert_array_equal(view_label(label, geometry), expected)


@pytest.mark.parametrize(
    ("width", "left"), [(321, 0), (322, 1), (323, 2), (324, 2), (325, 2), (326, 3), (327, 4)]
)
def test_halves_are_rounded_to_even(width, left):
    """(321 - 320) / 2 = 0.5 becomes 0, 1.5 becomes 2, 2.5 becomes 2."""
    label = np.broadcast_to(np.arange(width) % 256, (320, width)).astype(np.uint8)
    found = view_label(label, GEOMETRIES["picie-320"])
    assert found[0, 0] == left
    np.testing.assert_array_equal(found, label[:, left : left + 320])


@pytest.mark.parametrize(
    ("dataset", "size"),
    [("voc", (320, 320)), ("cityscapes", (320, 640)), ("lip", (640, 320)), ("", (320, 320))],
)
def test_transfgu_squashes(dataset, size):
    geometry = GEOMETRIES["transfgu"]
    image = picture((97, 211))
    height, width = size
    assert geometry.size(dataset) == size
    expected = Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(view_image(image, geometry, dataset), np.asarray(expected))
    label = image[..., 0]
    expected = Image.fromarray(label).resize((width, height), Image.Resampling.NEAREST)
    np.testing.assert_array_equal(view_label(label, geometry, dataset), np.asarray(expected))


def test_maskcontrast_squashes_images_and_leaves_labels():
    geometry = GEOMETRIES["maskcontrast-512"]
    image = picture((97, 211))
    assert view_image(image, geometry).shape == (512, 512, 3)
    assert view_label(image[..., 0], geometry).shape == (97, 211)
    assert geometry.own_labels


def test_full_changes_nothing():
    image = picture((9, 8))
    assert view_image(image, GEOMETRIES["full"]) is image
    assert GEOMETRIES["full"].size("voc") is None
    sample = from_arrays("a", image)
    assert through([sample], GEOMETRIES["full"]) == (sample,)


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from([name for name in GEOMETRIES if name != "full"]),
    st.integers(1, 700),
    st.integers(1, 90),
    st.booleans(),
)
def test_every_image_gets_the_size_that_is_promised(name, long, short, turned):
    geometry = GEOMETRIES[name]
    size = (long, short) if turned else (short, long)
    image = np.zeros((*size, 3), np.uint8)
    shape = view_image(image, geometry, "lip").shape[:2]
    assert shape == geometry.size("lip")
    label = view_label(image[..., 0], geometry, "lip").shape
    assert label == (size if geometry.own_labels else shape)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.int64])
def test_labels_keep_their_type_and_values(dtype):
    label = np.full((40, 50), 200, dtype)
    found = view_label(label, GEOMETRIES["picie-320"])
    assert found.dtype == dtype
    assert (found == 200).all()


def test_samples_are_seen_through_a_geometry_when_they_are_loaded():
    image = picture((40, 60))
    asked = []

    def load():
        asked.append("image")
        return image

    regions = [image[..., 0].astype(np.int32), image[..., 1].astype(np.int32)]
    whole = Sample("a", load, lambda: "d", lambda: image[..., 2], lambda: regions, ("x", "y"))
    geometry = GEOMETRIES["transfgu"]
    (seen,) = through([whole], geometry, "cityscapes")
    assert seen.id == "a"
    assert seen.classes == ("x", "y")
    assert not asked
    np.testing.assert_array_equal(seen.load(), view_image(image, geometry, "cityscapes"))
    assert seen.load_label().shape == (320, 640)
    assert [one.shape for one in seen.load_regions()] == [(320, 640)] * 2
    (other,) = through([whole], geometry, "lip")
    assert len({whole.digest(), seen.digest(), other.digest()}) == 3
    (bare,) = through([from_arrays("a", image)], geometry)
    assert bare.load_label is None
    assert bare.load_regions is None


def test_geometries_know_their_names():
    assert all(name == geometry.id for name, geometry in GEOMETRIES.items())
