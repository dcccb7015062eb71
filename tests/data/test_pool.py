import io

import numpy as np
import pytest
import torch
from PIL import Image as Pillow

from zerolabel.data import pool
from zerolabel.data.pool import LONG, load_pool
from zerolabel.errors import DataError


def ramp(height, width, seed=0):
    """Red grows downwards, green to the right; blue tells images apart."""
    image = np.zeros((height, width, 3), np.uint8)
    image[..., 0] = np.linspace(0, 255, height)[:, None]
    image[..., 1] = np.linspace(0, 255, width)
    image[..., 2] = 40 * seed
    return image


@pytest.fixture
def images():
    return {
        "a/square.png": ramp(40, 40),
        "b.png": ramp(32, 32, 1),
        "tall.png": ramp(60, 30, 2),
        "wide.png": ramp(36, 90, 3),
    }


@pytest.fixture
def folder(images, tmp_path):
    root = tmp_path / "photos"
    for name, image in images.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Pillow.fromarray(image).save(root / name)
    return root


def pack(path, blobs):
    offsets = np.cumsum([0, *map(len, blobs)]).astype(np.int64)
    np.savez(path, data=np.frombuffer(b"".join(blobs), np.uint8), offsets=offsets)
    return path


def encoded(image):
    file = io.BytesIO()
    Pillow.fromarray(image).save(file, "PNG")
    return file.getvalue()


def test_long_images_give_a_square_at_either_end(folder):
    found = load_pool(folder, side=16)
    assert found.name == "photos"
    assert found.images.shape == (6, 3, 16, 16)
    assert found.images.dtype == torch.uint8
    assert found.failures == {}
    blue = found.images[:, 2].flatten(1)
    assert (blue == blue[:, :1]).all()
    assert (blue[:, 0] // 40).tolist() == [0, 1, 2, 2, 3, 3]  # in the order of their names
    red, green = found.images[:, 0].float(), found.images[:, 1].float()
    top, bottom = red[2], red[3]
    assert top[0].max() < 10
    assert abs(top[-1].mean() - 127) < 10
    assert abs(bottom[0].mean() - 127) < 10
    assert bottom[-1].min() > 245
    left, right = green[4], green[5]
    assert left[:, 0].max() < 10
    assert abs(left[:, -1].mean() - 255 * 36 / 90) < 10
    assert abs(right[:, 0].mean() - 255 * 54 / 90) < 10
    assert right[:, -1].min() > 245


@pytest.mark.parametrize(("width", "squares"), [(40, 1), (43, 1), (44, 1), (45, 2), (400, 2)])
def test_what_counts_as_long(tmp_path, width, squares):
    Pillow.fromarray(ramp(40, width)).save(tmp_path / "a.png")
    found = load_pool(tmp_path / "a.png", side=40)
    assert found.images.shape == (squares, 3, 40, 40)
    assert (squares == 2) == (width > LONG * 40)
    if width == 44:  # the middle
        expected = torch.from_numpy(ramp(40, 44)[:, 2:42]).permute(2, 0, 1)
        assert torch.equal(found.images[0], expected)


def test_a_pack_is_as_good_as_a_folder(folder, images, tmp_path):
    one = load_pool(folder, side=16)
    other = load_pool(pack(tmp_path / "p.npz", [encoded(x) for x in images.values()]), side=16)
    assert other.name == "p.npz"
    assert torch.equal(one.images, other.images)
    assert one.digest == other.digest


def test_the_digest_follows_the_pixels_alone(folder, images):
    first, again = (load_pool(folder, side=16) for _ in range(2))
    assert first.digest == again.digest
    assert load_pool(folder, side=17).digest != first.digest
    changed = images["b.png"].copy()
    changed[:8] = 255
    Pillow.fromarray(changed).save(folder / "b.png")
    assert load_pool(folder, side=16).digest != first.digest


def test_small_images_stay_as_large_as_they_are(folder):
    found = load_pool(folder, side=500)
    assert found.images.shape[2:] == (40, 40)  # the largest short side
    assert torch.equal(found.images[0], torch.from_numpy(ramp(40, 40)).permute(2, 0, 1))


def test_damaged_images_are_listed_and_left_out(folder):
    whole = load_pool(folder, side=16)
    (folder / "aa.png").write_bytes(b"no image")
    (folder / "z.jpg").write_bytes(b"")
    found = load_pool(folder, side=16)
    assert torch.equal(found.images, whole.images)
    assert found.digest == whole.digest
    assert set(found.failures) == {"aa.png", "z.jpg"}
    assert "not an image" in found.failures["aa.png"]


def test_damaged_images_of_a_pack_are_listed(images, tmp_path):
    blobs = [encoded(x) for x in images.values()]
    blobs.insert(1, b"torn")
    found = load_pool(pack(tmp_path / "p.npz", blobs), side=16)
    assert list(found.failures) == ["image 1"]
    assert found.images.shape[0] == 6


def test_progress_is_told_chunk_by_chunk(folder, monkeypatch):
    whole = load_pool(folder, side=16)
    monkeypatch.setattr(pool, "CHUNK", 3)
    told = []
    found = load_pool(folder, side=16, tell=lambda *news: told.append(news))
    assert told == [("decode photos", 3, 4), ("decode photos", 4, 4)]
    assert found.digest == whole.digest


def test_sources_without_images_are_explained(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="empty holds no image"):
        load_pool(tmp_path / "empty", side=16)
    with pytest.raises(DataError, match="gone does not exist"):
        load_pool(tmp_path / "gone", side=16)
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "x.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"No image of .*bad could be read, e\.g\. x\.png: not an"):
        load_pool(tmp_path / "bad", side=16)


def test_a_corrupt_pack_is_explained(images, tmp_path):
    path = pack(tmp_path / "p.npz", [encoded(x) for x in images.values()])
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(DataError, match=r"p\.npz is not a pack of images"):
        load_pool(path, side=16)
