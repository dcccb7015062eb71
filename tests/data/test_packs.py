import io
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as Pillow

from zerolabel.data.packs import Pack
from zerolabel.errors import DataError, ImageError


def photo(height, width, seed=0):
    """A smooth picture: lossy formats keep it nearly."""
    ramp = np.add.outer(np.linspace(0, 90, height), np.linspace(0, 60, width))
    colour = np.random.default_rng(seed).integers(0, 90, 3)
    return (ramp[..., None] + colour).astype(np.uint8)


def encoded(image, kind="PNG", **options):
    file = io.BytesIO()
    Pillow.fromarray(image).save(file, kind, **options)
    return file.getvalue()


def arrays(blobs):
    return {
        "data": np.frombuffer(b"".join(blobs), np.uint8),
        "offsets": np.cumsum([0, *map(len, blobs)]).astype(np.int64),
    }


def write(path, blobs, **others):
    np.savez(path, **arrays(blobs), **others)
    return path


@pytest.fixture
def photos():
    return [photo(*size, seed=i) for i, size in enumerate([(40, 40), (30, 50), (64, 33), (1, 1)])]


def test_images_come_back_as_they_were(photos, tmp_path):
    pack = Pack(write(tmp_path / "a.npz", [encoded(image) for image in photos]))
    assert len(pack) == 4
    assert pack.labels is None
    for i, image in enumerate(photos):
        found = pack.decode(i)
        assert found.dtype == np.uint8
        np.testing.assert_array_equal(found, image)
    with pytest.raises(IndexError, match=r"images 0\.\.3, not 4"):
        pack.decode(4)


def test_every_format_and_mode_becomes_rgb(tmp_path):
    image = photo(24, 32)
    blobs = [
        encoded(image, "WEBP", lossless=True),
        encoded(image, "JPEG", quality=95),
        encoded(image[..., 0], "PNG"),
        encoded(np.dstack([image, np.full((24, 32), 9, np.uint8)]), "PNG"),
    ]
    pack = Pack(write(tmp_path / "a.npz", blobs, labels=np.array([3, 1, 0, 2], np.uint8)))
    found = [pack.decode(i).astype(int) for i in range(4)]
    assert [x.shape for x in found] == [(24, 32, 3)] * 4
    np.testing.assert_array_equal(found[0], image)
    assert np.abs(found[1] - image).mean() < 3
    np.testing.assert_array_equal(found[2], image[..., :1].repeat(3, 2))
    np.testing.assert_array_equal(found[3], image)
    assert pack.labels.dtype == np.int64
    assert pack.labels.tolist() == [3, 1, 0, 2]


def squares(pack, size):
    """Short side to `size`, then the middle, one at a time."""
    for i in range(len(pack)):
        image = Pillow.fromarray(pack.decode(i))
        scale = size / min(image.size)
        image = image.resize([max(size, round(scale * side)) for side in image.size], 3)
        left, top = ((side - size) // 2 for side in image.size)
        yield np.asarray(image.crop((left, top, left + size, top + size)), int)


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_squares_are_the_middle_of_the_image(photos, tmp_path, threads):
    pack = Pack(write(tmp_path / "a.npz", [encoded(image) for image in photos]))
    found = pack.decode_all(20, threads=threads)
    assert found.shape == (4, 3, 20, 20)
    assert found.dtype == torch.uint8
    for own, expected in zip(found.permute(0, 2, 3, 1).numpy(), squares(pack, 20), strict=True):
        assert np.abs(own - expected).max() <= 4  # a pixel of the long side lies elsewhere
    chosen = pack.decode_all(20, indices=[2, 0, 2], threads=threads)
    assert torch.equal(chosen, found[[2, 0, 2]])
    assert pack.decode_all(20, indices=[]).shape == (0, 3, 20, 20)


def test_images_of_the_right_size_are_not_touched(photos, tmp_path):
    pack = Pack(write(tmp_path / "a.npz", [encoded(photos[0]), encoded(photos[1][:, 5:])]))
    np.testing.assert_array_equal(pack.decode_all(40)[0].permute(1, 2, 0), photos[0])
    wide = pack.decode_all(30)[1].permute(1, 2, 0)
    np.testing.assert_array_equal(wide, photos[1][:, 12:42])


@pytest.mark.parametrize("bad", [b"", b"GIF89a", b"\x89PNG\r\n\x1a\n", b"%!PS-Adobe-3.0 EPSF-3.0"])
def test_an_image_that_cannot_be_decoded_is_named(photos, tmp_path, bad):
    blobs = [encoded(photos[0]), bad or b"0", encoded(photos[1])]
    pack = Pack(write(tmp_path / "a.npz", blobs))
    pack.decode(0)
    with pytest.raises(
        ImageError, match=r"Image 1 of .*a\.npz .* cannot be decoded: expected WebP"
    ):
        pack.decode(1)
    with pytest.raises(ImageError, match=r"Image 1 of .*a\.npz"):
        pack.decode_all(8)


def test_a_truncated_image_is_an_error(photos, tmp_path):
    blob = encoded(photos[0], "JPEG")
    pack = Pack(write(tmp_path / "a.npz", [blob[: len(blob) // 2]]))
    with pytest.raises(ImageError, match="Image 0"):
        pack.decode(0)


SOUND = arrays([encoded(photo(8, 8)), encoded(photo(9, 9))])
LAST = int(SOUND["offsets"][-1])
WRONG = {
    "no data": ({"data": None}, "expected the array data, found offsets"),
    "no offsets": ({"offsets": None}, "expected the array offsets, found data"),
    "floats": ({"data": SOUND["data"].astype(float)}, r"data as uint8 \(n,\), found float64"),
    "grid": ({"data": SOUND["data"][None]}, r"data as uint8 \(n,\), found uint8 \(1,"),
    "short offsets": (
        {"offsets": SOUND["offsets"].astype(np.int32)},
        r"offsets as int64 \(n,\), found int32 \(3,\)",
    ),
    "none": ({"offsets": np.zeros(1, np.int64)}, "at least 2 offsets, one image, found 1"),
    "falling": ({"offsets": np.array([0, 50, 20])}, "ascending offsets, found 20 after 50 at 2"),
    "empty": ({"offsets": np.array([0, 50, 50])}, "ascending offsets, found 50 after 50 at 2"),
    "beyond": (
        {"offsets": np.array([0, 50, LAST + 1])},
        rf"offsets in 0\.\.{LAST}, the bytes of data, found 0\.\.{LAST + 1}",
    ),
    "before": ({"offsets": np.array([-1, 50])}, r"found -1\.\.50"),
    "labels": ({"labels": np.zeros(3, np.uint8)}, r"2 integers in labels, found uint8 \(3,\)"),
    "words": ({"labels": np.array(["a", "b"])}, r"2 integers in labels, found <U1 \(2,\)"),
}


@pytest.mark.parametrize("name", WRONG)
def test_packs_that_do_not_fit_are_explained(name, tmp_path):
    changes, message = WRONG[name]
    path = tmp_path / "a.npz"
    kept = {key: value for key, value in {**SOUND, **changes}.items() if value is not None}
    np.savez(path, **kept)
    with pytest.raises(DataError, match=rf"a\.npz is not a pack of images: .*{message}"):
        Pack(path)


def test_files_that_are_no_archive_are_explained(tmp_path):
    whole = write(tmp_path / "whole.npz", [encoded(photo(40, 40))]).read_bytes()
    torn = bytearray(whole)
    torn[len(whole) // 3] ^= 255  # a checksum notices
    contents = {"empty": b"", "text": b"hello", "short": whole[: len(whole) // 2], "torn": torn}
    for name, content in contents.items():
        path = tmp_path / f"{name}.npz"
        path.write_bytes(content)
        with pytest.raises(DataError, match=rf"{name}\.npz is not a pack of images: expected an"):
            Pack(path)
    np.save(tmp_path / "one.npy", np.zeros(3))
    with pytest.raises(DataError, match=r"expected an \.npz archive, found a single array"):
        Pack(tmp_path / "one.npy")
    with pytest.raises(DataError, match=r"gone\.npz does not exist"):
        Pack(tmp_path / "gone.npz")
    with pytest.raises(DataError, match="not a pack of images"):
        Pack(tmp_path)
    pickled = {"data": np.array([{}], object), "offsets": np.arange(2)}
    np.savez(tmp_path / "p.npz", **pickled)
    with pytest.raises(DataError, match="not a pack of images"):
        Pack(tmp_path / "p.npz")


@pytest.mark.skipif("ZEROLABEL_DATA" not in os.environ, reason="no real data")
def test_real_packs():
    folder = Path(os.environ["ZEROLABEL_DATA"])
    val = Pack(folder / "tiny-imagenet" / "val.npz")
    assert len(val) == 5000
    assert np.bincount(val.labels).tolist() == [25] * 200
    assert val.decode_all(64, indices=range(0, 5000, 100)).shape == (50, 3, 64, 64)
    photos = Pack(folder / "photos" / "photos-0.npz")
    assert (len(photos), photos.labels) == (3250, None)
    assert min(photos.decode(7).shape[:2]) == 224
