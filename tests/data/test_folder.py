"""Every kind of file that people keep among their photos."""

import contextlib
import os
import struct
import sys
import threading
import zlib

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin
from PIL.ExifTags import Base

from zerolabel.data.folder import SUFFIXES, file_digest, find_images, from_arrays, read_image
from zerolabel.errors import DataError, ImageError

posix = pytest.mark.skipif(os.name != "posix", reason="needs a POSIX file system")

ROWS, COLS = 6, 10
RAMP = np.linspace(0, 255, ROWS * COLS).astype(np.uint8).reshape(ROWS, COLS)
RGB = np.stack([RAMP, RAMP[::-1], RAMP[:, ::-1]], axis=2)


def ids(root):
    return [sample.id for sample in find_images(root)]


def save(path, array=RGB, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(array)).save(path, **options)
    return path


def png(path, array, depth, colour):
    """Write a PNG by hand: Pillow cannot write 16 bits per channel in colour."""
    rows, cols = array.shape[:2]
    big = array.astype(">u2" if depth == 16 else np.uint8)
    raw = b"".join(b"\0" + row.tobytes() for row in big)
    header = struct.pack(">IIBBBBB", cols, rows, depth, colour, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n"
    for kind, body in ((b"IHDR", header), (b"IDAT", zlib.compress(raw)), (b"IEND", b"")):
        data += struct.pack(">I", len(body)) + kind + body
        data += struct.pack(">I", zlib.crc32(kind + body))
    path.write_bytes(data)
    return path


# --- what is found -------------------------------------------------------------------------------


def test_any_nesting_sorted_by_relative_path(tmp_path):
    for name in ("b.JPG", "a/z.png", "a/b/c.Tiff", "B/x.jpeg"):
        save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no image")
    assert ids(tmp_path) == sorted(["B/x.jpeg", "a/b/c.Tiff", "a/z.png", "b.JPG"])


def test_one_file_is_a_data_set_whatever_its_suffix(tmp_path):
    assert ids(save(tmp_path / "photo.png")) == ["photo.png"]
    assert ids(save(tmp_path / "photo", format="PNG")) == ["photo"]


def test_hidden_things_and_runs_are_skipped_but_not_the_files_of_others(tmp_path):
    for name in (".x.jpg", ".cache/a.jpg", "run/masks/a.png", "theirs/a.png", "a.jpg"):
        save(tmp_path / name)
    (tmp_path / "run" / "run.json").write_text('{\n  "zerolabel": "0.1.0"\n}')
    (tmp_path / "theirs" / "run.json").write_text('{"tool": "another"}')
    assert ids(tmp_path) == ["a.jpg", "theirs/a.png"]


def test_a_folder_called_like_an_image_is_a_folder(tmp_path):
    save(tmp_path / "x.jpg" / "a.png")
    assert ids(tmp_path) == ["x.jpg/a.png"]


@posix
def test_links_are_followed_each_folder_once(tmp_path):
    save(tmp_path / "photos" / "real" / "a.png")
    save(tmp_path / "elsewhere" / "b.png")
    (tmp_path / "photos" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "photos" / "real" / "round").symlink_to(tmp_path / "photos")
    assert ids(tmp_path / "photos") == ["linked/b.png", "real/a.png"]


@posix
@pytest.mark.skipif(sys.platform == "darwin", reason="macOS allows Unicode names only")
def test_names_need_not_be_unicode(tmp_path):
    name = os.fsdecode(b"caf\xe9.png")
    save(tmp_path / "ok.png")
    os.rename(tmp_path / "ok.png", tmp_path / name)
    [sample] = find_images(tmp_path)
    assert sample.id == name
    assert sample.load().shape == RGB.shape


@posix
def test_a_folder_that_cannot_be_listed_is_a_failure_not_a_gap(tmp_path, monkeypatch):
    save(tmp_path / "a.png")
    save(tmp_path / "closed" / "b.png")
    scandir = os.scandir

    def refuse(path):
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    first, second = find_images(tmp_path)
    assert (first.id, second.id) == ("a.png", "closed")
    with pytest.raises(ImageError, match="a folder that cannot be listed"):
        second.load()
    with pytest.raises(DataError, match="Permission denied"):
        find_images(tmp_path / "closed")


def test_no_image_says_what_is_there_instead(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        find_images(tmp_path / "nope")
    with pytest.raises(DataError, match="found nothing"):
        find_images(tmp_path)
    for i in range(3):
        (tmp_path / f"{i}.heic").write_bytes(b"x")
    with pytest.raises(DataError, match=r"found 3 \.heic"):
        find_images(tmp_path)


def test_nothing_is_opened_before_it_is_asked_for(tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"nonsense")
    [sample] = find_images(tmp_path)
    with pytest.raises(ImageError, match="not an image"):
        sample.load()


# --- how pixels are read -------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", sorted(SUFFIXES - {".avif", ".jp2", ".npy"}))
def test_every_suffix_is_read(tmp_path, suffix):
    kind = {".jfif": "JPEG", ".pgm": "PPM", ".pnm": "PPM"}.get(suffix)
    path = save(tmp_path / f"a{suffix}", **({"format": kind} if kind else {}))
    image = read_image(path)
    assert (image.shape, image.dtype) == (RGB.shape, np.uint8)


def test_the_content_decides_not_the_suffix(tmp_path):
    path = save(tmp_path / "png.jpg", format="PNG")
    np.testing.assert_array_equal(read_image(path), RGB)


def test_formats_that_start_programs_are_not_opened(tmp_path):
    path = tmp_path / "a.jpg"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n")
    with pytest.raises(ImageError, match="not an image"):
        read_image(path)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_16_bit_grey_is_divided_by_256(tmp_path, suffix):
    deep = np.array([[0, 255, 256, 32768, 65535]], np.uint16)
    image = read_image(save(tmp_path / f"a.{suffix}", deep))
    np.testing.assert_array_equal(image, np.repeat((deep // 256)[..., None], 3, axis=2))


@pytest.mark.parametrize(("colour", "channels"), [(2, 3), (6, 4)])
def test_16_bit_colour(tmp_path, colour, channels):
    deep = np.zeros((2, 3, channels), np.uint16)
    deep[..., 0], deep[..., 1] = 65535, 32768
    deep[..., 3:] = 65535
    image = read_image(png(tmp_path / "a.png", deep, 16, colour))
    np.testing.assert_array_equal(image, np.tile(np.uint8([255, 128, 0]), (2, 3, 1)))


def test_16_bit_grey_with_alpha(tmp_path):
    deep = np.array([[[65535, 65535], [0, 65535], [0, 0]]], np.uint16)
    image = read_image(png(tmp_path / "a.png", deep, 16, 4))
    np.testing.assert_array_equal(image[0, :, 0], [255, 0, 255])


def test_32_bit_integers_beyond_16_bits_say_so(tmp_path):
    path = save(tmp_path / "a.tif", np.array([[0, 70000]], np.int32))
    with pytest.raises(ImageError, match="values from 0 to 70000"):
        read_image(path)


@pytest.mark.parametrize(
    ("values", "expected"),
    [([0, 0.5, 1.0], [0, 128, 255]), ([0, 100.4, 255], [0, 100, 255])],
)
def test_float_tiff(tmp_path, values, expected):
    image = read_image(save(tmp_path / "a.tif", np.float32([values])))
    np.testing.assert_array_equal(image[0, :, 1], expected)


@pytest.mark.parametrize("values", [[0, np.nan], [-1, 1], [0, 256], [0, np.inf]])
def test_floats_of_another_range_say_so(tmp_path, values):
    with pytest.raises(ImageError, match="floats of 0..1 or 0..255"):
        read_image(save(tmp_path / "a.tif", np.float32([values])))


def test_grey_and_one_bit(tmp_path):
    np.testing.assert_array_equal(read_image(save(tmp_path / "a.png", RAMP))[..., 2], RAMP)
    bits = RAMP > 99
    path = tmp_path / "b.png"
    Image.fromarray(bits).save(path, bits=1)
    np.testing.assert_array_equal(read_image(path)[..., 0], np.where(bits, 255, 0))


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_is_laid_on_white(tmp_path, mode):
    channels = len(mode)
    image = np.zeros((1, 3, channels), np.uint8)
    image[0, :, -1] = [255, 128, 0]  # black: opaque, half, gone
    got = read_image(save(tmp_path / "a.png", image))
    np.testing.assert_allclose(got[0, :, 0], [0, 127, 255], atol=1)


def test_palettes_with_and_without_transparency(tmp_path):
    indices = np.array([[0, 1, 2]], np.uint8)
    picture = Image.fromarray(indices).convert("P")
    picture.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    picture.save(tmp_path / "plain.png")
    picture.save(tmp_path / "clear.png", transparency=1)
    plain = read_image(tmp_path / "plain.png")
    np.testing.assert_array_equal(plain[0], [[10, 20, 30], [40, 50, 60], [70, 80, 90]])
    clear = read_image(tmp_path / "clear.png")
    np.testing.assert_array_equal(clear[0], [[10, 20, 30], [255, 255, 255], [70, 80, 90]])


def test_a_transparent_colour_of_an_rgb_png(tmp_path):
    image = np.uint8([[[1, 2, 3], [4, 5, 6]]])
    path = save(tmp_path / "a.png", image, transparency=(1, 2, 3))
    np.testing.assert_array_equal(read_image(path)[0], [[255, 255, 255], [4, 5, 6]])


def flat_cmyk(path, colour, **options):
    Image.new("CMYK", (16, 16), colour).save(path, **options)
    return read_image(path)[8, 8].tolist()


def test_cmyk(tmp_path):
    red = (0, 255, 255, 0)
    assert flat_cmyk(tmp_path / "a.tif", red) == [255, 0, 0]
    # Adobe writes CMYK JPEGs inverted, and so does Pillow: both ways must meet.
    assert flat_cmyk(tmp_path / "a.jpg", red, quality=95) == pytest.approx([255, 0, 0], abs=3)
    data = (tmp_path / "a.jpg").read_bytes()
    assert b"Adobe" in data


def test_only_the_first_frame_of_an_animation(tmp_path):
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    for name in ("a.gif", "a.webp", "a.png", "a.tif"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
        image = read_image(tmp_path / name)
        assert image.shape == (4, 4, 3)
        assert image[2, 2, 0] > 240
        assert image[2, 2, 2] < 15


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_exif_rotation(tmp_path, orientation, suffix):
    upright = {  # EXIF 2.32, table 6: where row 0 and column 0 of the file lie in the picture
        1: RGB,
        2: RGB[:, ::-1],
        3: RGB[::-1, ::-1],
        4: RGB[::-1],
        5: RGB.transpose(1, 0, 2),
        6: RGB.transpose(1, 0, 2)[:, ::-1],
        7: RGB.transpose(1, 0, 2)[::-1, ::-1],
        8: RGB.transpose(1, 0, 2)[::-1],
    }[orientation]
    path = tmp_path / f"a.{suffix}"
    if suffix == "tif":
        tags = TiffImagePlugin.ImageFileDirectory_v2()
        tags[Base.Orientation] = orientation
        save(path, tiffinfo=tags)
    else:
        exif = Image.Exif()
        exif[Base.Orientation] = orientation
        save(path, exif=exif)
    np.testing.assert_array_equal(read_image(path), upright)


def test_a_damaged_exif_block_costs_nothing_but_the_rotation(tmp_path):
    path = save(tmp_path / "a.jpg", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x09\x01\x12\xff\xff")
    assert read_image(path).shape == RGB.shape


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1), (2, 20_000)])
def test_extreme_shapes(tmp_path, size):
    assert read_image(save(tmp_path / "a.png", np.zeros((*size, 3), np.uint8))).shape == (*size, 3)


# --- what cannot be read -------------------------------------------------------------------------


def reason(path):
    with pytest.raises(ImageError) as error:
        read_image(path)
    text = str(error.value)
    assert text
    assert "\n" not in text
    return text


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "gif", "webp", "bmp"])
def test_truncated(tmp_path, suffix):
    rng = np.random.default_rng(0)
    path = save(tmp_path / f"a.{suffix}", rng.integers(0, 255, (64, 64, 3), np.uint8))
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 2 // 3])
    assert "cannot be read" in reason(path)


def test_truncated_and_rotated(tmp_path):
    exif = Image.Exif()
    exif[Base.Orientation] = 6
    rng = np.random.default_rng(0)
    path = save(tmp_path / "a.jpg", rng.integers(0, 255, (64, 64, 3), np.uint8), exif=exif)
    path.write_bytes(path.read_bytes()[:-500])
    assert "truncated" in reason(path)


def test_empty_text_and_missing(tmp_path):
    (tmp_path / "empty.jpg").touch()
    assert reason(tmp_path / "empty.jpg") == "the file is empty"
    (tmp_path / "text.jpg").write_text("hello")
    assert "not an image" in reason(tmp_path / "text.jpg")
    assert "No such file" in reason(tmp_path / "gone.jpg")


def test_a_decompression_bomb_is_refused_without_being_decoded(tmp_path):
    path = png(tmp_path / "a.png", np.zeros((1, 1), np.uint8), 8, 0)
    data = bytearray(path.read_bytes())
    data[16:24] = struct.pack(">II", 100_000, 100_000)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    path.write_bytes(bytes(data))
    assert "too large to be decoded safely" in reason(path)


@posix
def test_links_to_nothing_and_pipes_do_not_hang(tmp_path):
    (tmp_path / "link.jpg").symlink_to(tmp_path / "nowhere.jpg")
    os.mkfifo(tmp_path / "pipe.jpg")
    found = {}

    def look():
        for sample in find_images(tmp_path):
            found[sample.id] = (reason(tmp_path / sample.id), sample.digest())

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    thread.join(5)
    assert not thread.is_alive(), "reading from a pipe waits for ever"
    assert "link to a file that does not exist" in found["link.jpg"][0]
    assert "not a regular file" in found["pipe.jpg"][0]
    assert found["pipe.jpg"][1] == "unreadable"


def test_damaged_files_never_raise_anything_else(tmp_path):
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 255, (16, 16, 3), np.uint8)
    for suffix in ("jpg", "png", "tif", "gif", "webp", "bmp", "ppm"):
        data = save(tmp_path / f"a.{suffix}", noise).read_bytes()
        for _ in range(60):
            broken = bytearray(data)
            for place in rng.integers(0, len(data), 4):
                broken[place] = rng.integers(256)
            (tmp_path / "b").write_bytes(bytes(broken))
            with contextlib.suppress(ImageError):
                assert read_image(tmp_path / "b").dtype == np.uint8


# --- digests and samples -------------------------------------------------------------------------


def test_digests_tell_contents_apart_and_are_taken_once(tmp_path):
    a, b = save(tmp_path / "a.png"), save(tmp_path / "b.png", RGB[::-1])
    assert file_digest(a) != file_digest(b)
    assert file_digest(a) == file_digest(save(tmp_path / "c.png"))
    sample = find_images(a)[0]
    first = sample.digest()
    a.unlink()
    assert sample.digest() == first


def test_arrays_as_samples():
    sample = from_arrays("x", RGB, RAMP)
    assert sample.load() is RGB
    assert sample.load_label() is RAMP
    assert sample.digest() != from_arrays("x", RGB[::-1].copy()).digest()
    assert from_arrays("x", RGB).load_label is None
