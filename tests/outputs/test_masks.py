import unicodedata
from pathlib import Path, PurePosixPath

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from zerolabel.errors import DataError, UsageError
from zerolabel.outputs.colours import palette
from zerolabel.outputs.masks import mask_names, read_mask, write_mask

PARTS = st.sampled_from(["a", "A", "a.png", "b.jpg", "é", "e\u0301", "a.jpg", "a~2", "ß", "SS"])
SUFFIXES = st.sampled_from([".jpg", ".JPG", ".png", ".jpg.png", ".jpg~2.png", ""])
IDS = st.builds(
    lambda parts, suffix: "/".join(parts) + suffix,
    st.lists(PARTS, min_size=1, max_size=3),
    SUFFIXES,
)


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        (["a.jpg"], ["a.png"]),
        (["x/y.z/ä.b.jpeg"], ["x/y.z/ä.b.png"]),
        (["a.jpg", "a.png"], ["a.jpg.png", "a.png.png"]),
        (["a.jpg", "b/a.png"], ["a.png", "b/a.png"]),
        (["A.jpg", "a.png"], ["A.jpg.png", "a.png.png"]),
        (["A.jpg", "a.jpg"], ["A.jpg.png", "a.jpg~2.png"]),
        # the second name of one image may be the first name of another
        (["a.jpg", "a.png", "a.jpg.jpg"], ["a.jpg.png", "a.png.png", "a.jpg.jpg.png"]),
        (["a.jpg", "a.png/b.jpg"], ["a.jpg.png", "a.png/b.png"]),
        ([], []),
    ],
)
def test_names_of_masks(ids: list[str], expected: list[str]) -> None:
    assert list(mask_names(ids).items()) == list(zip(ids, expected, strict=True))


@given(st.lists(IDS, unique=True, max_size=12), st.randoms())
@settings(max_examples=200, deadline=None)
def test_no_two_masks_share_a_file_on_any_system(ids: list[str], random) -> None:  # type: ignore[no-untyped-def]
    names = mask_names(ids)
    assert set(names) == set(ids)

    def same(name: str) -> str:
        return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())

    files = {same(name) for name in names.values()}
    folders = {same(str(parent)) for i in ids for parent in PurePosixPath(i).parents}
    assert len(files) == len(ids)
    assert not files & folders
    assert all(name.endswith(".png") for name in names.values())
    assert all(PurePosixPath(n).parent == PurePosixPath(i).parent for i, n in names.items())
    shuffled = list(ids)
    random.shuffle(shuffled)
    assert mask_names(shuffled) == names


@pytest.mark.parametrize("k", [1, 21, 255])
def test_eight_bit_round_trip(tmp_path: Path, k: int) -> None:
    labels = np.random.default_rng(0).integers(0, k, (17, 23)).astype(np.int64)
    labels[:3] = 255
    colours = palette(k)
    path = tmp_path / "deep" / "ä.png"
    write_mask(path, labels, colours=colours)
    back = read_mask(path)
    assert back.dtype == np.uint8
    np.testing.assert_array_equal(back, labels)
    with Image.open(path) as picture:
        assert picture.mode == "P"
        shown = np.asarray(picture.convert("RGB"))
    np.testing.assert_array_equal(shown[:3], 0)
    np.testing.assert_array_equal(shown[3:], colours[labels[3:]])


@pytest.mark.parametrize("k", [256, 65535])
def test_sixteen_bit_round_trip(tmp_path: Path, k: int) -> None:
    labels = np.random.default_rng(0).integers(0, k, (17, 23)).astype(np.uint16)
    labels[0] = 65535
    labels[1, :2] = 255, k - 1
    write_mask(tmp_path / "a.png", labels, colours=palette(k))
    back = read_mask(tmp_path / "a.png")
    assert back.dtype == np.uint16
    np.testing.assert_array_equal(back, labels)


@pytest.mark.parametrize(
    ("labels", "k", "words"),
    [
        (np.full((2, 2), 5), 5, "holds \\[5\\].*0 to 4, and 255"),
        (np.full((2, 2), -1), 5, "holds \\[-1\\]"),
        (np.full((2, 2), 300), 300, "0 to 299, and 65535"),
        (np.zeros((2, 2)), 5, "float64"),
        (np.zeros((2, 2, 3), dtype=np.uint8), 5, "\\(2, 2, 3\\)"),
    ],
)
def test_impossible_masks_are_refused(
    tmp_path: Path, labels: np.ndarray, k: int, words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        write_mask(tmp_path / "a.png", labels, colours=palette(k))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA"])
def test_a_png_of_colours_is_refused(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "colours.png"
    Image.new(mode, (4, 3)).save(path)
    with pytest.raises(DataError, match=f"colours.png holds {mode}.*expected a palette PNG"):
        read_mask(path)


def test_other_damage_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="none.png is not there"):
        read_mask(tmp_path / "none.png")
    Image.new("L", (4, 3)).save(tmp_path / "a.jpg")
    with pytest.raises(DataError, match="a.jpg is not a PNG"):
        read_mask(tmp_path / "a.jpg")
    write_mask(tmp_path / "cut.png", np.zeros((50, 50), dtype=np.uint8), colours=palette(3))
    data = (tmp_path / "cut.png").read_bytes()
    for length in (20, 60, len(data) - 20):
        (tmp_path / "cut.png").write_bytes(data[:length])
        with pytest.raises(DataError, match="cut.png"):
            read_mask(tmp_path / "cut.png")


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_masks_of_few_bits_keep_their_ids(tmp_path: Path, bits: int) -> None:
    labels = np.arange(2**bits, dtype=np.uint8)[None].repeat(3, axis=0)
    palette_mask = Image.fromarray(labels)
    palette_mask.putpalette(palette(16).tobytes())
    palette_mask.save(tmp_path / "p.png", bits=bits)
    np.testing.assert_array_equal(read_mask(tmp_path / "p.png"), labels)
    (tmp_path / "l.png").write_bytes(_grey_png(labels, bits))
    np.testing.assert_array_equal(read_mask(tmp_path / "l.png"), labels)


def _grey_png(labels: np.ndarray, bits: int) -> bytes:
    """Encode a greyscale PNG of few bits by hand; Pillow writes none."""
    import struct
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        checked = kind + data
        return struct.pack(">I", len(data)) + checked + struct.pack(">I", zlib.crc32(checked))

    planes = (labels[..., None] >> np.arange(bits - 1, -1, -1)) & 1
    rows = np.packbits(planes.reshape(len(labels), -1).astype(np.uint8), axis=1)
    raw = b"".join(b"\0" + row.tobytes() for row in rows)
    header = struct.pack(">IIBBBBB", labels.shape[1], labels.shape[0], bits, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(raw))
        + chunk(b"IEND", b"")
    )
