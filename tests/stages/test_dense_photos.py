"""Dense features of whole photos, whatever their shape."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from planted_clip import planted_clip, planted_photos

from zerolabel.backbones import load
from zerolabel.data.folder import from_arrays
from zerolabel.errors import ImageError
from zerolabel.stages.dense import Look, photos, whole
from zerolabel.store import Store
from zerolabel.types import Sample

CLIP = planted_clip()


def broken():
    def load_image():
        raise ImageError("torn")

    return Sample("torn.png", load_image, lambda: "torn")


@given(
    st.tuples(st.integers(1, 5000), st.integers(1, 5000)),
    st.integers(16, 800),
    st.integers(16, 2048),
)
def test_a_photo_keeps_its_shape_in_whole_patches(shape, short, longest):
    height, width = whole(shape, Look(short=short, longest=longest), patch=16)
    assert height % 16 == width % 16 == 0
    assert min(height, width) >= 16
    assert max(height, width) <= longest + 8
    scale = min(short / min(shape), longest / max(shape))
    for side, wanted in zip((height, width), shape, strict=True):
        assert abs(side - wanted * scale) <= 8 or side == 16


def test_photos_of_several_shapes_are_as_if_each_were_alone():
    batch = [
        *planted_photos(2, size=(64, 96), seed=1),
        *planted_photos(1, size=(96, 64), seed=2),
        *planted_photos(1, size=(64, 96), seed=3),
    ]
    together, failures = photos(CLIP, batch, Look(short=64), store=Store())
    assert not failures
    assert [one.sample for one in together] == batch
    for one in together:
        [alone], _ = photos(CLIP, [one.sample], Look(short=64), store=Store())
        assert one.dense.shape[:2] == tuple(n // 8 for n in one.sample.load().shape[:2])
        torch.testing.assert_close(one.dense, alone.dense)
        assert torch.allclose(one.dense.norm(dim=-1), torch.ones(()), atol=2e-3)


def test_keys_come_with_them_where_they_are_asked_for():
    clip, [photo] = load("random-clipt16"), planted_photos(1, size=(64, 96))
    [seen], _ = photos(clip, [photo], Look(short=64), keys=True, store=Store())
    image = torch.from_numpy(photo.load()).permute(2, 0, 1)[None]
    expected = clip.encode(image, want={"dense", "keys"})
    torch.testing.assert_close(seen.keys, expected.keys[0], atol=1e-2, rtol=2e-3)
    torch.testing.assert_close(
        seen.dense, F.normalize(expected.dense[0], dim=-1), atol=1e-3, rtol=0
    )


def test_what_was_seen_is_read_back_and_torn_photos_are_told(tmp_path, monkeypatch):
    batch = [*planted_photos(2, size=(64, 96)), broken()]
    first, failures = photos(CLIP, batch, Look(short=64), store=Store(tmp_path))
    assert failures == {"torn.png": "torn"}
    monkeypatch.setattr(CLIP, "encode", lambda *a, **k: pytest.fail("encoded twice"))
    again, told = photos(CLIP, batch, Look(short=64), store=Store(tmp_path))
    assert told == failures
    for a, b in zip(first, again, strict=True):
        assert torch.equal(a.dense, b.dense)


def test_a_photo_of_one_pixel_is_seen():
    dot = from_arrays("dot.png", np.zeros((1, 1, 3), np.uint8))
    [seen], _ = photos(CLIP, [dot], Look(short=64), store=Store())
    assert seen.dense.shape[:2] == (8, 8)
