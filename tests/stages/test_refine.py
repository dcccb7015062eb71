import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from zerolabel.data.synthetic import world
from zerolabel.errors import UsageError
from zerolabel.ops.crf import crf as field
from zerolabel.ops.regions import components, sizes
from zerolabel.ops.resize import guided_argmax, upsample
from zerolabel.stages import refine as stage
from zerolabel.stages.refine import REFINE, refine


def photo(height=48, width=64, seed=0):
    return world(3, images=1, size=(height, width), seed=seed)[0].load()


def painted(ids, K):
    """Scores that are 1 for the category of each patch."""
    return torch.from_numpy(np.eye(K, dtype=np.float32)[ids]).permute(2, 0, 1)


def random_ids(shape=(6, 8), K=5, seed=0):
    return np.random.default_rng(seed).integers(0, K, shape)


@pytest.mark.parametrize("patch", [1, 2, 8, 13])
def test_nearest_paints_whole_patches(patch):
    ids = random_ids()
    found = refine(painted(ids, 5), photo(6 * patch, 8 * patch), name="nearest")
    np.testing.assert_array_equal(found, ids.repeat(patch, 0).repeat(patch, 1))
    assert found.dtype == np.uint8


def test_nearest_between_patches_takes_the_one_a_pixel_lies_in():
    ids = random_ids((3, 4))
    found = refine(painted(ids, 5), photo(50, 71), name="nearest")
    row = ((np.arange(50) + 0.5) * 3 / 50).astype(int)
    col = ((np.arange(71) + 0.5) * 4 / 71).astype(int)
    np.testing.assert_array_equal(found, ids[row][:, col])


@pytest.mark.parametrize("name", REFINE)
@given(data=st.data())
@settings(deadline=None, max_examples=15)
def test_ids_are_never_interpolated(name, data):
    K = data.draw(st.integers(1, 12))
    h, w = data.draw(st.integers(1, 5)), data.draw(st.integers(1, 5))
    H, W = data.draw(st.integers(1, 40)), data.draw(st.integers(1, 40))
    image = photo(48, 64)[:H, :W]
    scores = torch.rand(K, h, w, generator=torch.Generator().manual_seed(H * W))
    found = refine(scores, image, name=name)
    assert found.shape == (H, W)
    assert set(np.unique(found)) <= set(scores.argmax(0).flatten().tolist())


@pytest.mark.parametrize("name", REFINE)
def test_far_apart_ids_do_not_mix(name):
    ids = np.zeros((6, 8), int)
    ids[:, 4:] = 9
    found = refine(painted(ids, 10), photo(), name=name)
    assert set(np.unique(found)) == {0, 9}
    assert (found[:, :16] == 0).all()
    assert (found[:, 48:] == 9).all()


@pytest.mark.parametrize("name", REFINE)
def test_one_category_covers_everything(name):
    assert (refine(torch.rand(1, 4, 5), photo(), name=name) == 0).all()
    scores = painted(np.full((4, 5), 2), 3)
    assert (refine(scores, photo(), name=name) == 2).all()


@pytest.mark.parametrize("name", REFINE)
def test_uncovered_patches_are_ignored_and_whole(name):
    covered = torch.from_numpy(random_ids(K=2, seed=1).astype(bool))
    ids = random_ids()
    whole = refine(painted(ids, 5), photo(), name=name)
    found = refine(painted(ids, 5), photo(), name=name, covered=covered)
    hidden = ~covered.numpy().repeat(8, 0).repeat(8, 1)
    assert (found[hidden] == 255).all()
    np.testing.assert_array_equal(found[~hidden], whole[~hidden])


@pytest.mark.parametrize("name", REFINE)
@pytest.mark.parametrize(("K", "dtype"), [(255, np.uint8), (256, np.uint16), (300, np.uint16)])
def test_many_categories(name, K, dtype):
    ids = np.full((6, 8), K - 1)
    ids[:, :4] = 254
    covered = torch.ones(6, 8, dtype=torch.bool)
    covered[0, 0] = False
    found = refine(painted(ids, K), photo(), name=name, covered=covered)
    assert found.dtype == dtype
    assert found[-1, -1] == K - 1
    assert found[-1, 0] == 254
    assert found[0, 0] == np.iinfo(dtype).max  # 255 is a category among more than 255
    assert (found == np.iinfo(dtype).max).sum() == 64


def test_bilinear_decides_after_interpolation():
    scores = torch.tensor([[[1.0, 0, 0]], [[0.8, 0.9, 0]], [[0, 0, 1.0]]])  # (3, 1, 3)
    found = refine(scores, photo(8, 24), name="bilinear")
    expected = torch.nn.functional.interpolate(scores[None], size=(8, 24), mode="bilinear")[0]
    np.testing.assert_array_equal(found, expected.argmax(0))


def test_guided_and_crf_follow_the_photo_and_nearest_does_not():
    image = np.zeros((48, 64, 3), np.uint8)
    image[:, 28:] = 220  # the edge runs through the middle of a patch
    ids = np.zeros((6, 8), int)
    ids[:, 4:] = 1
    truth = (np.arange(64) >= 28).astype(int)[None].repeat(48, 0)
    wrong = {
        name: (refine(painted(ids, 2), image, name=name) != truth).mean()
        for name in ("guided", "crf", "bilinear", "nearest")
    }
    assert wrong["nearest"] == pytest.approx(4 / 64)
    assert wrong["crf"] == 0
    assert wrong["guided"] < 0.25 * wrong["bilinear"]


def test_guided_leaves_no_specks_where_the_photo_is_grainy():
    image = np.random.default_rng(0).integers(0, 255, (48, 64, 3)).astype(np.uint8)
    scores = 0.5 + 0.01 * torch.randn(2, 6, 8, generator=torch.Generator().manual_seed(0))
    grain = guided_argmax(scores, torch.from_numpy(image).permute(2, 0, 1), radius=8)
    found = refine(scores, image, name="guided")
    assert sizes(components(grain.numpy())).min() == 1
    assert sizes(components(found)).min() >= 16  # a quarter of a patch of 8 x 8
    assert (found == grain.numpy()).mean() > 0.9


def test_crf_is_the_dense_crf_of_the_sharpened_scores():
    image, scores = photo(), painted(random_ids(), 5)
    pixels = torch.from_numpy(image).permute(2, 0, 1).contiguous()
    log_p = (stage.SHARPNESS * upsample(scores, (48, 64))).log_softmax(0)
    wanted = field(log_p, pixels).argmax(0)
    np.testing.assert_array_equal(refine(scores, image, name="crf"), wanted)
    assert (wanted != log_p.argmax(0)).float().mean() > 0.02


@pytest.mark.parametrize("limit", [100, 600, 3071])
def test_crf_of_a_large_photo_works_on_fewer_pixels(monkeypatch, limit):
    image = photo()
    image[:] = 60
    image[:, 28:] = 180
    ids = np.zeros((6, 8), int)
    ids[:, 4:] = 3
    worked = []

    def watched(log_p, pixels):
        assert pixels.shape[1:] == log_p.shape[1:]
        worked.append(pixels[0].numel())
        return field(log_p, pixels)

    monkeypatch.setattr(stage, "MOST_PIXELS", limit)
    monkeypatch.setattr(stage.dense, "crf", watched)
    found = refine(painted(ids, 4), image, name="crf")
    assert 0.7 * limit < worked[0] <= limit
    wrong = found != np.where(np.arange(64) >= 28, 3, 0)
    assert wrong.mean() < 1 / np.sqrt(limit)  # a pixel of the small photo along the edge


def test_crf_of_a_large_photo_is_decided_in_strips(monkeypatch):
    image, scores = photo(), painted(random_ids(), 5)
    monkeypatch.setattr(stage, "MOST_PIXELS", 1000)
    whole = refine(scores, image, name="crf")
    monkeypatch.setattr(stage, "STRIP", 100)
    np.testing.assert_array_equal(refine(scores, image, name="crf"), whole)


def test_read_only_images_are_taken():
    image = photo()
    image.flags.writeable = False
    for name in REFINE:
        assert refine(torch.rand(3, 6, 8), image, name=name).shape == (48, 64)


def test_an_unknown_name_is_explained():
    with pytest.raises(UsageError, match="Unknown refine stage 'guide'.*Did you mean 'guided'"):
        refine(torch.rand(2, 2, 2), photo(), name="guide")
