import struct
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from zerolabel.data import labels
from zerolabel.data.labels import (
    UnknownValuesError,
    fit,
    read_label,
    read_raw,
    read_regions,
    remap,
    tally,
)
from zerolabel.data.spaces import plain_space, space
from zerolabel.errors import DataError


def ids(count):
    return plain_space("test", tuple(f"class {i}" for i in range(count)))


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA"])
def test_coloured_masks_are_refused(tmp_path, mode):
    Image.new(mode, (3, 2)).save(tmp_path / "a.png")
    with pytest.raises(DataError, match=rf"a\.png is a {mode} picture.*Expected.*found {mode}"):
        read_label(tmp_path / "a.png", ids(5))


def test_masks_of_every_depth_hold_the_same_ids(tmp_path):
    label = np.array([[0, 1, 1, 0]], np.uint8)
    Image.fromarray(label).save(tmp_path / "8.png")
    Image.fromarray(label.astype(np.uint16)).save(tmp_path / "16.png")
    Image.fromarray(label.astype(bool)).save(tmp_path / "1.png")
    small = Image.fromarray(label)
    small.putpalette([9, 9, 9, 5, 5, 5])
    small.save(tmp_path / "palette.png", bits=1)
    for name in ("8", "16", "1", "palette"):
        found = read_label(tmp_path / f"{name}.png", ids(2))
        assert found.dtype == np.uint8, name
        assert found.tolist() == label.tolist(), name


def test_grey_masks_of_four_bits_hold_ids(tmp_path):
    # Pillow cannot write these: one row of two pixels, values 3 and 11
    def chunk(kind, body):
        checksum = struct.pack(">I", zlib.crc32(kind + body))
        return struct.pack(">I", len(body)) + kind + body + checksum

    header = struct.pack(">IIBBBBB", 2, 1, 4, 0, 0, 0, 0)
    row = zlib.compress(bytes([0, 0x3B]))
    png = chunk(b"IHDR", header) + chunk(b"IDAT", row) + chunk(b"IEND", b"")
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + png)
    assert read_label(tmp_path / "a.png", ids(20)).tolist() == [[3, 11]]


def test_ids_of_16_bits_do_not_wrap(tmp_path):
    Image.fromarray(np.array([[1, 257, 65535, 255]], np.uint16)).save(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"a\.png .*: expected 0-1, 255, found 257, 65535\."):
        read_label(tmp_path / "a.png", ids(2))


def test_many_strange_values_are_cut_short(tmp_path):
    Image.fromarray(np.arange(100, dtype=np.uint8)[None]).save(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"found 2, 3, 4, 5, 6, 7, 8, 9 and more\."):
        read_label(tmp_path / "a.png", ids(2))


@given(st.sampled_from(["coco27", "voc20", "cityscapes19", "stanford8"]), st.data())
def test_remapping_is_looking_up_every_pixel(name, data):
    table = space(name)
    values = st.lists(st.sampled_from(sorted(table.known)), min_size=1, max_size=30)
    raw = np.array([data.draw(values)], np.int32)
    expected = [[int(table.lut[value]) for value in raw[0]]]
    for dtype in (np.int32, np.int64, *([np.uint8] if raw.min() >= 0 else [])):
        found = remap(raw.astype(dtype), table, path="x.png")
        assert found.dtype == np.uint8
        assert found.flags.writeable
        assert found.tolist() == expected


@given(st.integers(-300, 300))
def test_a_value_is_either_known_or_an_error(value):
    table = space("stanford8")
    raw = np.array([[value, 0]], np.int32)
    if value in table.known:
        assert remap(raw, table, path="x.txt").shape == (1, 2)
    else:
        with pytest.raises(DataError, match=f"found {value}"):
            remap(raw, table, path="x.txt")


def test_an_empty_mask_is_remapped_to_an_empty_one():
    assert remap(np.zeros((0, 4), np.int32), ids(2), path="x").shape == (0, 4)


def test_colours_are_bits_also_where_borders_are_blended(tmp_path):
    colours = np.array([[[0, 0, 0], [0, 0, 255], [255, 0, 127], [128, 200, 90]]], np.uint8)
    Image.fromarray(colours).save(tmp_path / "a.bmp")
    assert read_raw(tmp_path / "a.bmp", reader="colours").tolist() == [[0, 1, 4, 6]]
    Image.fromarray(colours).quantize(4).save(tmp_path / "p.bmp")
    assert read_raw(tmp_path / "p.bmp", reader="colours").tolist() == [[0, 1, 4, 6]]
    Image.new("L", (3, 2)).save(tmp_path / "grey.bmp")
    with pytest.raises(DataError, match=r"grey\.bmp is a L picture\. Expected colours"):
        read_raw(tmp_path / "grey.bmp", reader="colours")


def test_text_holds_numbers(tmp_path):
    path = tmp_path / "a.regions.txt"
    path.write_text("0 1 -3\n7 -1 2\n")
    assert read_raw(path, reader="text").tolist() == [[0, 1, -1], [7, -1, 2]]
    assert read_label(path, space("stanford8"), reader="text").tolist() == [
        [0, 1, 255],
        [7, 255, 2],
    ]
    path.write_text("4\n")
    assert read_raw(path, reader="text").tolist() == [[4]]
    path.write_text("")
    with pytest.raises(DataError, match="is empty"):
        read_raw(path, reader="text")
    for broken in ("1 2\n3\n", "sky\n"):
        path.write_text(broken)
        with pytest.raises(DataError, match=r"a\.regions\.txt cannot be read"):
            read_raw(path, reader="text")


def test_regions_that_are_none(tmp_path):
    from scipy.io import savemat

    path = tmp_path / "a.mat"
    path.write_bytes(b"no such thing")
    with pytest.raises(DataError, match=r"a\.mat cannot be read"):
        read_regions(path)
    savemat(path, {"other": np.zeros(3)})
    with pytest.raises(DataError, match=r"a\.mat is no ground truth of BSDS500"):
        read_regions(path)
    savemat(path, {"groundTruth": np.zeros((1, 2))})
    with pytest.raises(DataError, match=r"a\.mat is no ground truth of BSDS500"):
        read_regions(path)
    with pytest.raises(DataError, match="cannot be read"):
        read_regions(tmp_path / "nowhere.mat")


sizes = st.tuples(st.integers(1, 40), st.integers(1, 40))


@given(sizes, sizes, st.sampled_from([np.uint8, np.uint16, np.int64]))
def test_fit_takes_the_pixel_under_the_centre(size, target, dtype):
    """Where a centre lies between two pixels either is right: Pillow's sums decide."""
    rows, cols = (fit(axis.astype(dtype), target) for axis in np.indices(size))
    assert rows.shape == target
    assert rows.dtype == dtype
    for found, old, new in zip((rows[:, 0], cols[0]), size, target, strict=True):
        centres = (np.arange(new) + 0.5) * old / new
        assert ((found <= centres + 1e-9) & (centres - 1e-9 <= found + 1)).all()
    assert (rows == rows[:, :1]).all()
    assert (cols == cols[:1]).all()


def test_a_mask_can_be_brought_to_the_size_of_an_image(tmp_path):
    Image.fromarray(np.array([[0, 1]], np.uint8)).save(tmp_path / "m.png")
    Image.new("RGB", (6, 2)).save(tmp_path / "i.png")
    found = read_label(tmp_path / "m.png", ids(2), image=tmp_path / "i.png")
    assert found.tolist() == [[0, 0, 0, 1, 1, 1]] * 2
    (tmp_path / "i.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"The image .*i\.png cannot be read"):
        read_label(tmp_path / "m.png", ids(2), image=tmp_path / "i.png")


@given(
    arrays(
        st.sampled_from([np.uint8, np.uint16, np.int64]),
        st.tuples(st.integers(0, 9), st.integers(0, 9)),
        elements=st.integers(0, 255),
    )
)
def test_tally_counts_every_value(label):
    assert tally(label) == dict(sorted(Counter(label.ravel().tolist()).items()))
    assert list(tally(label)) == sorted(tally(label))


def test_tally_counts_large_and_cut_labels_in_parts(monkeypatch):
    label = np.random.default_rng(0).integers(0, 256, (60, 70), np.uint8)
    expected = tally(label), tally(label[::2, 3:])
    monkeypatch.setattr(labels, "ELEMENTS", 11)
    assert (tally(label), tally(label[::2, 3:])) == expected
    assert sum(expected[1].values()) == 30 * 67


def test_values_that_are_unknown_can_be_asked_for():
    with pytest.raises(UnknownValuesError) as caught:
        remap(np.array([[7, 1, 9, 255, 9]]), ids(5), path=Path("a.png"))
    assert (caught.value.values, caught.value.expected) == ((7, 9), "0-4, 255")
