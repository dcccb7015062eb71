"""Images with bands: what is read, what it looks like, and what is refused in which words."""

import contextlib
import io
import sys

import numpy as np
import pytest
from PIL import Image

from zerolabel.data.arrays import bands_axis
from zerolabel.data.bands import BandFile, bands_of, common_bands, find_bands, preview, read_bands
from zerolabel.data.folder import find_images, from_arrays, read_image
from zerolabel.errors import DataError, ImageError, UsageError

tifffile = pytest.importorskip("tifffile")

H, W = 20, 30
CUBE = np.random.default_rng(0).integers(0, 4000, (H, W, 12)).astype(np.uint16)
CONTIG = {"photometric": "minisblack", "planarconfig": "contig"}
PLANES = {"photometric": "minisblack", "planarconfig": "separate"}


def npy(path, array):
    with open(path, "wb") as file:  # np.save would add a suffix
        np.save(file, array)
    return path


def tif(path, array, **options):
    tifffile.imwrite(path, array, **options)
    return path


def reason(path):
    with pytest.raises(ImageError) as error:
        read_bands(path)
    text = str(error.value)
    assert text
    assert "\n" not in text
    return text


def one(path, **options):
    [sample] = find_images(path, **options)
    return sample


# --- arrays --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "dtype", "u1 i1 u2 i2 >u2 u4 i4 i8 f2 f4 >f4 f8 ?".split(), ids="dtype {}".format
)
def test_values_stay_as_they_are_in_every_type(tmp_path, dtype):
    array = (CUBE % 2 if dtype == "?" else CUBE % 100).astype(dtype)
    bands = read_bands(npy(tmp_path / "a.npy", array))
    assert (bands.dtype, bands.shape) == (np.float32, (H, W, 12))
    assert bands.flags.c_contiguous
    np.testing.assert_array_equal(bands, array.astype(np.float32))


@pytest.mark.parametrize(
    ("shape", "axis"),
    [
        ((64, 48, 12), 2),
        ((12, 64, 48), 0),
        ((12, 64, 16), 2),  # both fit: the last
        ((12, 64, 17), 0),
        ((1, 64, 48), 0),
        ((64, 48, 1), 2),
        ((3, 3, 3), 2),
        ((17, 5, 17), None),
        ((64, 12, 48), None),
    ],
)
def test_the_last_axis_is_bands_unless_only_the_first_is_small(tmp_path, shape, axis):
    assert bands_axis(shape) == axis
    array = np.random.default_rng(0).random(shape)
    path = npy(tmp_path / "a.npy", array)
    if axis is None:
        assert "expected (height, width), or (height, width, bands)" in reason(path)
    else:
        expected = np.moveaxis(array, axis, 2).astype(np.float32)
        np.testing.assert_array_equal(read_bands(path), expected)
        assert find_bands(path).count() == expected.shape[2]


def test_two_axes_are_one_band_in_any_order_of_memory(tmp_path):
    array = np.asfortranarray(CUBE[..., 0])
    path = npy(tmp_path / "a.npy", array)
    np.testing.assert_array_equal(read_bands(path)[..., 0], array)
    assert find_bands(path).count() == 1
    image = one(path).load()
    assert (image == image[..., :1]).all()


@pytest.mark.parametrize("shape", [(), (5,), (2, 3, 4, 5), (0, 5), (4, 4, 0), (0, 4, 3)])
def test_what_has_no_image_shape_says_which_it_has(tmp_path, shape):
    found = reason(npy(tmp_path / "a.npy", np.zeros(shape)))
    assert "(height, width" in found or "cannot be read" in found


class Trap:
    def __reduce__(self):
        return (pytest.fail, ("the file was unpickled",))


def test_objects_are_never_unpickled(tmp_path):
    path = tmp_path / "a.npy"
    np.save(path, np.array([[Trap()]], dtype=object), allow_pickle=True)
    assert "Python objects" in reason(path)
    with pytest.raises(ImageError, match="Python objects"):
        find_bands(path).count()


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (CUBE.astype(np.complex64), "take the magnitude"),
        (np.full((4, 4), "x"), "values of type <U1"),
        (np.zeros((4, 4), "M8[s]"), "values of type datetime64"),
        (np.zeros((4, 4), [("a", "f4")]), "values of type"),
        (np.full((4, 4), 2**24 + 1), r"from 16777217 to 16777217"),
        (np.full((4, 4), -(2**31), np.int32), "2^24"),
    ],
)
def test_types_that_are_no_values_are_refused_with_words(tmp_path, array, words):
    assert words in reason(npy(tmp_path / "a.npy", array))


def test_whole_numbers_that_floats_hold_are_read(tmp_path):
    array = np.array([[2**24, -(2**24)]])
    np.testing.assert_array_equal(read_bands(npy(tmp_path / "a.npy", array))[..., 0], array)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (np.nan, "NaN in 12 of 600 pixels of band 3"),
        (np.inf, "infinite values in 12 of 600 pixels of band 3"),
        (-np.inf, "infinite values in 12 of 600 pixels of band 3"),
        (1e300, "infinite values in 12 of 600 pixels of band 3"),
    ],
)
def test_what_is_no_number_is_counted(tmp_path, value, words):
    array = CUBE.astype(np.float64)
    array[4, 3:15, 3] = value
    path = npy(tmp_path / "a.npy", array)
    assert reason(path) == words
    with pytest.raises(ImageError, match=words):
        one(path).load()


def test_damaged_arrays_never_raise_anything_else(tmp_path):
    whole = npy(tmp_path / "a.npy", CUBE).read_bytes()
    rng = np.random.default_rng(0)
    path = tmp_path / "b.npy"
    for cut in (3, 6, 8, 20, 128, len(whole) - 1):
        path.write_bytes(whole[:cut])
        assert reason(path)
    for _ in range(100):
        broken = bytearray(whole)
        for place in rng.integers(0, 128, 3):
            broken[place] = rng.integers(256)
        path.write_bytes(bytes(broken))
        with contextlib.suppress(ImageError):
            assert read_bands(path).dtype == np.float32


def test_a_header_that_promises_more_than_the_file_has_costs_no_memory(tmp_path):
    buffer = io.BytesIO()
    header = {"descr": "<f8", "fortran_order": False, "shape": (10**6, 10**6)}
    np.lib.format.write_array_header_1_0(buffer, header)
    path = tmp_path / "a.npy"
    path.write_bytes(buffer.getvalue() + b"\0" * 64)
    assert "cannot be read" in reason(path)


# --- TIFF ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("array", "options"),
    [
        (CUBE, CONTIG),
        (CUBE.astype(np.float32) / 7, CONTIG),
        (CUBE.astype(np.float64) / 8, CONTIG),
        ((CUBE % 256).astype(np.uint8), CONTIG),
        (CUBE, {**CONTIG, "bigtiff": True}),
        (CUBE, {**CONTIG, "byteorder": ">"}),
        (CUBE, {**CONTIG, "tile": (16, 16)}),
        (CUBE, {**CONTIG, "compression": "zlib", "predictor": True}),
        (CUBE[..., :2], CONTIG),
        (CUBE[..., :4], {"photometric": "rgb", "extrasamples": ["unspecified"]}),
        (CUBE[..., :3].astype(np.float32), {"photometric": "rgb"}),
        (CUBE[..., :1].astype(np.float64), {}),
    ],
)
def test_bands_beside_each_other(tmp_path, array, options):
    path = tif(tmp_path / "a.tif", array, **options)
    sample = one(path)
    np.testing.assert_array_equal(sample.load_bands(), array.astype(np.float32))
    assert sample.load_bands.count() == array.shape[2]
    np.testing.assert_array_equal(sample.load(), preview(array.astype(np.float32)))


@pytest.mark.parametrize(
    "options",
    [
        PLANES,
        {},  # one page per band
        {"imagej": True, "metadata": {"axes": "CYX"}},
        {"ome": True, "metadata": {"axes": "CYX"}},
    ],
)
def test_bands_one_after_another(tmp_path, options):
    path = tif(tmp_path / "a.tif", CUBE.transpose(2, 0, 1), **options)
    np.testing.assert_array_equal(one(path).load_bands(), CUBE)
    assert one(path).load_bands.count() == 12
    np.testing.assert_array_equal(read_image(path), preview(CUBE.astype(np.float32)))


def test_as_many_bands_as_rows_and_columns_stay_in_order(tmp_path):
    cube = CUBE[:12, :12]
    path = tif(tmp_path / "a.tif", cube.transpose(2, 0, 1), **PLANES)
    np.testing.assert_array_equal(one(path).load_bands(), cube)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_turns_bands_as_it_turns_photos(tmp_path, orientation):
    tag = (274, "H", 1, orientation, True)
    photo = (CUBE[..., :3] % 256).astype(np.uint8)
    upright = read_image(tif(tmp_path / "a.tif", photo, photometric="rgb", extratags=[tag]))
    four = np.concatenate([photo, photo[..., :1]], axis=2)
    bands = one(tif(tmp_path / "b.tif", four, extratags=[tag], **CONTIG)).load_bands()
    np.testing.assert_array_equal(bands[..., :3], upright)


def test_deep_photos_look_as_before_and_give_their_values_too(tmp_path):
    grey, colour = CUBE[..., 0], CUBE[..., :3]
    deep = one(tif(tmp_path / "a.tif", grey))
    expected = np.repeat((grey // 256)[..., None], 3, axis=2)
    np.testing.assert_array_equal(deep.load(), expected)
    np.testing.assert_array_equal(deep.load_bands()[..., 0], grey)
    assert deep.load_bands.count() == 1
    rgb = one(tif(tmp_path / "b.tif", colour, photometric="rgb"))
    np.testing.assert_array_equal(rgb.load(), colour // 256)
    np.testing.assert_array_equal(rgb.load_bands(), colour)
    real = one(tif(tmp_path / "c.tif", np.float32([[0, 0.5, 1]])))
    np.testing.assert_array_equal(real.load()[0, :, 0], [0, 128, 255])
    np.testing.assert_array_equal(real.load_bands()[0, :, 0], np.float32([0, 0.5, 1]))


def test_transparency_is_no_band(tmp_path):
    options = {"photometric": "rgb", "extrasamples": ["unassalpha"]}
    sample = one(tif(tmp_path / "a.tif", CUBE[..., :4], **options))
    np.testing.assert_array_equal(sample.load_bands(), CUBE[..., :3])
    assert sample.load_bands.count() == 3


def test_photos_have_no_bands_of_their_own(tmp_path):
    photo = (CUBE[..., :3] % 256).astype(np.uint8)
    picture = Image.fromarray(photo)
    for mode in ("L", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "P", "1", "LA"):
        picture.convert("RGB" if mode == "LAB" else mode).save(tmp_path / f"{mode}.tif")
    deep = Image.fromarray(CUBE[..., 0])
    deep.save(tmp_path / "deep.png")  # as before: values divided by 256
    frames = [picture, picture.rotate(90)]
    frames[0].convert("L").save(tmp_path / "f.tif", save_all=True, append_images=frames[1:])
    grey = [frame.convert("L").resize((W, H)) for frame in frames]
    grey[0].save(tmp_path / "g.tif", save_all=True, append_images=grey[1:])
    samples = find_images(tmp_path)
    assert len(samples) == 12
    assert [sample.id for sample in samples if sample.load_bands is not None] == []
    for sample in samples:
        assert sample.load().shape == (H, W, 3)
    np.testing.assert_array_equal(one(tmp_path / "RGB.tif").load(), photo)
    np.testing.assert_array_equal(bands_of(one(tmp_path / "RGB.tif")), photo)


def test_many_pages_are_frames_as_before(tmp_path):
    pages = np.stack([CUBE[..., 0]] * 3)
    frames = [Image.fromarray(page) for page in pages]
    frames[0].save(tmp_path / "a.tif", save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(one(tmp_path / "a.tif").load_bands()[..., 0], CUBE[..., 0])
    depth = tif(tmp_path / "b.tif", pages, imagej=True, metadata={"axes": "ZYX"})
    assert one(depth).load_bands.count() == 1


@pytest.mark.parametrize(
    ("array", "options", "words"),
    [
        (np.repeat(CUBE, 2, axis=2), CONTIG, "24 bands: expected 1 to 16"),
        (CUBE[..., :4].astype(np.complex64), CONTIG, "take the magnitude"),
        (np.stack([CUBE.transpose(2, 0, 1)] * 2), PLANES, "save one image per file"),
    ],
)
def test_tiffs_that_are_refused(tmp_path, array, options, words):
    path = tif(tmp_path / "a.tif", array, **options)
    assert words in reason(path)
    with pytest.raises(ImageError, match=words):
        read_image(path)


def test_a_small_file_that_decodes_to_any_size_is_refused(tmp_path, monkeypatch):
    cube = tif(tmp_path / "a.tif", np.zeros((H, W, 12), np.uint8), compression="zlib", **CONTIG)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", H * W // 2 - 1)
    assert "too large to be decoded safely" in reason(cube)
    with pytest.raises(ImageError, match="too large"):
        read_image(cube)


def test_without_tifffile_the_message_says_what_is_missing(tmp_path, monkeypatch):
    cube, grey = tif(tmp_path / "a.tif", CUBE, **CONTIG), tif(tmp_path / "b.tif", CUBE[..., 0])
    monkeypatch.setitem(sys.modules, "tifffile", None)
    first, second = find_images(tmp_path)
    with pytest.raises(ImageError, match=r"needs the package tifffile; pip install 'zerolabel\["):
        first.load()
    np.testing.assert_array_equal(second.load_bands()[..., 0], CUBE[..., 0])  # through Pillow
    assert find_bands(cube) is not None
    assert find_bands(grey).count() == 1


def test_damaged_tiffs_never_raise_anything_else(tmp_path):
    rng = np.random.default_rng(0)
    path = tmp_path / "b.tif"
    for options in (CONTIG, PLANES):
        array = CUBE if options is CONTIG else CUBE.transpose(2, 0, 1)
        whole = tif(tmp_path / "a.tif", array, **options).read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
        with pytest.raises(ImageError):
            read_image(path)
        for _ in range(60):
            broken = bytearray(whole)
            for place in rng.integers(0, 400, 4):
                broken[place] = rng.integers(256)
            path.write_bytes(bytes(broken))
            load_bands = one(path).load_bands or BandFile(path)  # looking for it never fails
            for use in (lambda: read_bands(path), lambda: read_image(path), load_bands.count):
                with contextlib.suppress(ImageError):
                    use()


# --- pictures ------------------------------------------------------------------------------------


def test_a_preview_stretches_each_band_between_its_percentiles():
    bands = CUBE.astype(np.float32) * np.float32([1, 100, -1] + 9 * [0]) + 5
    shown = preview(bands)
    assert (shown.dtype, shown.shape) == (np.uint8, (H, W, 3))
    for number in range(3):
        low, high = np.percentile(bands[..., number], (2, 98))
        expected = 255 * ((bands[..., number] - low) / (high - low)).clip(0, 1)
        np.testing.assert_allclose(shown[..., number], expected, atol=0.51)
    assert (shown == 0).any(axis=(0, 1)).all()
    assert (shown == 255).any(axis=(0, 1)).all()


def test_constant_and_nearly_constant_bands():
    bands = np.full((H, W, 3), 7, np.float32)
    bands[3, 4, 1] = 9
    shown = preview(bands)
    assert (shown[..., [0, 2]] == 128).all()
    assert shown[3, 4, 1] == 255
    assert np.count_nonzero(shown[..., 1]) == 1


def test_large_images_are_stretched_by_a_sample():
    band = np.random.default_rng(0).normal(size=(1500, 1500, 1)).astype(np.float32)
    low, high = np.percentile(band, (2, 98))
    expected = 255 * ((band - low) / (high - low)).clip(0, 1)
    assert np.abs(preview(band)[..., :1] - expected).max() < 3


def test_which_bands_are_shown(tmp_path):
    path = npy(tmp_path / "a.npy", CUBE)
    each = [preview(CUBE.astype(np.float32)[..., [i]])[..., 0] for i in range(12)]
    np.testing.assert_array_equal(one(path).load(), np.stack(each[:3], axis=2))
    chosen = one(path, previews=(11, 4, 4)).load()
    np.testing.assert_array_equal(chosen, np.stack([each[11], each[4], each[4]], axis=2))
    np.testing.assert_array_equal(read_image(path, previews=(11, 4, 4)), chosen)
    two = preview(CUBE[..., :2].astype(np.float32))
    np.testing.assert_array_equal(two, np.stack([each[0], each[1], each[1]], axis=2))
    with pytest.raises(ImageError, match=r"band 12 .* expected one of 0\.\.11"):
        one(path, previews=(0, 1, 12)).load()


@pytest.mark.parametrize("chosen", [(0, 1), (0, 1, 2, 3), (-1, 0, 1), (0, 1, 16)])
def test_which_bands_cannot_be_shown(tmp_path, chosen):
    npy(tmp_path / "a.npy", CUBE)
    with pytest.raises(UsageError, match="three bands"):
        find_images(tmp_path, previews=chosen)


# --- folders -------------------------------------------------------------------------------------


def test_bands_beside_photos(tmp_path):
    Image.fromarray((CUBE[..., :3] % 256).astype(np.uint8)).save(tmp_path / "a.jpg")
    npy(tmp_path / "b.NPY", CUBE)
    tif(tmp_path / "c.TIFF", CUBE, **CONTIG)
    (tmp_path / "d.npy").write_text("no array")
    samples = find_images(tmp_path)
    assert [sample.id for sample in samples] == ["a.jpg", "b.NPY", "c.TIFF", "d.npy"]
    assert [sample.load_bands is not None for sample in samples] == [False, True, True, False]
    for sample in samples[:3]:
        assert (sample.load().shape, sample.load().dtype) == ((H, W, 3), np.uint8)
    with pytest.raises(ImageError, match="not an image"):
        samples[3].load()
    assert len({sample.digest() for sample in samples}) == 4


def test_different_numbers_of_bands_are_an_error_of_who_asks(tmp_path):
    for name, count in (("a", 12), ("b", 12), ("c", 4)):
        npy(tmp_path / f"{name}.npy", CUBE[..., :count])
    samples = find_images(tmp_path)
    assert common_bands(samples[:2]) == 12
    with pytest.raises(DataError, match=r"a\.npy has 12, c\.npy has 4\. Expected one number"):
        common_bands(samples)
    assert len([sample.load() for sample in samples]) == 3


def test_photos_count_three_and_what_cannot_be_read_does_not_count(tmp_path):
    photo = from_arrays("photo", np.zeros((4, 4, 3), np.uint8))
    assert common_bands([photo]) == 3
    bad, good = npy(tmp_path / "a.npy", np.zeros(5)), npy(tmp_path / "b.npy", CUBE)
    samples = find_images(tmp_path)
    assert common_bands(samples) == 12
    with pytest.raises(DataError, match="photo has 3, b.npy has 12"):
        common_bands([photo, *samples])
    good.unlink()
    with pytest.raises(DataError, match="No image can be read: a.npy: an array of shape"):
        common_bands(find_images(tmp_path))
    bad.unlink()
    with pytest.raises(DataError, match="there is none"):
        common_bands([])


def test_a_file_that_is_gone_says_so(tmp_path):
    path = npy(tmp_path / "a.npy", CUBE)
    sample = one(path)
    path.unlink()
    for use in (sample.load, sample.load_bands, sample.load_bands.count):
        with pytest.raises(ImageError, match="No such file"):
            use()
