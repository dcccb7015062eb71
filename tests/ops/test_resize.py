import numpy as np
import pytest
import torch
from PIL import Image as Pillow
from reference.guided import guided_filter

from zerolabel.data.synthetic import world
from zerolabel.ops.resize import guided_argmax, resize, resize_labels, upsample


def photo(height, width, seed=0):
    """A planted world: edges, gratings, noise; (3, H, W)."""
    image = world(4, images=1, size=(height, width), seed=seed)[0].load()
    return torch.from_numpy(image.copy()).permute(2, 0, 1)


def coarse(K, h, w, seed=0):
    return torch.rand(K, h, w, generator=torch.Generator().manual_seed(seed))


def distance_from_pillow(image, size, mode):
    array = np.ascontiguousarray(image.permute(1, 2, 0).numpy())
    method = {"bicubic": Pillow.Resampling.BICUBIC, "bilinear": Pillow.Resampling.BILINEAR}[mode]
    # Columns before rows: Pillow's own order depends on its version, and what overshoots is clipped
    # after each pass.
    wide = Pillow.fromarray(array).resize((size[1], array.shape[0]), method)
    expected = np.asarray(wide.resize(size[::-1], method)).astype(int)
    found = resize(image[None], size, mode=mode)
    assert found.dtype == torch.uint8
    assert found.shape == (1, 3, *size)
    return np.abs(found[0].permute(1, 2, 0).numpy() - expected)


@pytest.mark.parametrize("mode", ["bicubic", "bilinear"])
@pytest.mark.parametrize("size", [(40, 52), (17, 80), (30, 85), (5, 3), (1, 1), (1, 9)])
@pytest.mark.parametrize("noisy", [False, True])
def test_shrinking_is_within_one_grey_level_of_pillow(noisy, size, mode):
    generator = torch.Generator().manual_seed(0)
    noise = torch.randint(0, 256, (3, 64, 85), dtype=torch.uint8, generator=generator)
    assert distance_from_pillow(noise if noisy else photo(64, 85), size, mode).max() <= 1


@pytest.mark.parametrize("mode", ["bicubic", "bilinear"])
@pytest.mark.parametrize("size", [(64, 90), (224, 224), (100, 85)])
def test_growing_is_hardly_ever_two_grey_levels_from_pillow(size, mode):
    distance = distance_from_pillow(photo(64, 85), size, mode)
    assert distance.max() <= 2
    assert (distance > 1).mean() < 1e-3


@pytest.mark.parametrize("size", [(1, 1), (2, 1), (3, 3), (5, 4)])
def test_photos_of_a_few_pixels(size):
    one = resize(torch.full((2, 3, *size), 200, dtype=torch.uint8), (1, 1))
    assert (one == 200).all()
    assert one.dtype == torch.uint8
    many = resize(torch.full((2, 3, *size), 200, dtype=torch.uint8), (24, 16))
    assert (many == 200).all()


def test_resize_to_the_same_size_changes_nothing():
    image = photo(20, 30)[None]
    assert torch.equal(resize(image, (20, 30)), image)


def bilinear_by_loops(scores, size):
    """Pixel centres at half-integers, values beyond the outermost centres repeated."""
    K, h, w = scores.shape
    out = np.zeros((K, *size))
    for row in range(size[0]):
        for col in range(size[1]):
            y = min(max((row + 0.5) * h / size[0] - 0.5, 0), h - 1)
            x = min(max((col + 0.5) * w / size[1] - 0.5, 0), w - 1)
            top, left = int(y), int(x)
            bottom, right = min(top + 1, h - 1), min(left + 1, w - 1)
            upper = (1 - x + left) * scores[:, top, left] + (x - left) * scores[:, top, right]
            lower = (1 - x + left) * scores[:, bottom, left] + (x - left) * scores[:, bottom, right]
            out[:, row, col] = (1 - y + top) * upper + (y - top) * lower
    return out


@pytest.mark.parametrize(("grid", "size"), [((3, 4), (13, 9)), ((1, 5), (7, 30)), ((6, 6), (6, 6))])
def test_upsample_equals_a_loop_over_pixels(grid, size):
    scores = coarse(2, *grid)
    np.testing.assert_allclose(
        upsample(scores, size).numpy(), bilinear_by_loops(scores.numpy(), size), atol=1e-6
    )


@pytest.mark.parametrize(
    ("radius", "epsilon", "grid"), [(2, 1e-3, (3, 4)), (5, 1e-2, (4, 4)), (3, 1e-4, (18, 22))]
)
def test_guided_filter_equals_least_squares_in_every_window(radius, epsilon, grid):
    image, scores = photo(18, 22), coarse(3, *grid)
    found = guided_argmax(scores, image, radius=radius, epsilon=epsilon, subsample=1)
    fine = bilinear_by_loops(scores.numpy(), (18, 22))
    expected = guided_filter(image.numpy() / 255, fine, radius=radius, epsilon=epsilon)
    first, second = -np.sort(-expected, axis=0)[:2]
    clear = first - second > 1e-4  # elsewhere float32 may decide otherwise
    assert clear.mean() > 0.9
    np.testing.assert_array_equal(found.numpy()[clear], expected.argmax(0)[clear])
    assert (expected.argmax(0) != fine.argmax(0)).mean() > 0.05  # the filter does something


def test_the_fast_filter_is_near_the_exact_one():
    image, scores = photo(96, 128), coarse(3, 12, 16)
    exact = guided_argmax(scores, image, radius=8, subsample=1)
    fast = guided_argmax(scores, image, radius=8, subsample=4)
    plain = upsample(scores, (96, 128)).argmax(0)
    assert (fast == exact).float().mean() > 0.9
    assert (fast == exact).float().mean() > (plain == exact).float().mean()


@pytest.mark.parametrize("strip", [1, 128 * 3, 128 * 41])
def test_strips_give_the_same_as_one_piece(strip):
    image, scores = photo(97, 128), coarse(5, 12, 16)
    whole = guided_argmax(scores, image, radius=8)
    assert torch.equal(guided_argmax(scores, image, radius=8, strip=strip), whole)


def test_edges_of_the_photo_stay_sharp():
    row, col = np.mgrid[:96, :96]
    truth = (row + 0.6 * col > 75).astype(np.int64)  # a diagonal
    grey = 70 + 90 * truth + np.random.default_rng(0).normal(0, 6, truth.shape)
    image = torch.from_numpy(np.clip(grey, 0, 255).astype(np.uint8))[None].repeat(3, 1, 1)
    share = truth.reshape(12, 8, 12, 8).mean((1, 3))
    blocks = torch.from_numpy(np.eye(2)[(share > 0.5).astype(int)]).permute(2, 0, 1).float()
    wrong = {
        "guided": (guided_argmax(blocks, image, radius=8).numpy() != truth).mean(),
        "bilinear": (upsample(blocks, (96, 96)).argmax(0).numpy() != truth).mean(),
    }
    assert wrong["bilinear"] > 0.01
    assert wrong["guided"] < 0.25 * wrong["bilinear"]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int64])
@pytest.mark.parametrize("size", [(1, 1), (5, 7), (4, 9), (13, 3), (10, 14)])
def test_labels_are_taken_from_the_pixel_at_the_centre(size, dtype):
    labels = np.arange(35, dtype=dtype).reshape(5, 7)
    found = resize_labels(labels, size)
    assert (found.dtype, found.shape) == (dtype, size)
    for y, x in np.ndindex(size):  # centres lie at a half
        row, column = (2 * y + 1) * 5 // (2 * size[0]), (2 * x + 1) * 7 // (2 * size[1])
        assert found[y, x] == labels[row, column]


@pytest.mark.parametrize("grey", [0, 128, 255])
def test_a_flat_photo_leaves_the_scores_as_they_are(grey):
    image = torch.full((3, 40, 64), grey, dtype=torch.uint8)
    scores = torch.zeros(3, 5, 8)
    scores[1, :, :4] = scores[2, :, 4:] = 1  # a NaN would win everywhere
    upright = guided_argmax(scores, image, radius=8)
    lying = guided_argmax(scores.transpose(1, 2), image.transpose(1, 2), radius=8)
    for found in (upright, lying.T):
        assert (found[:, :32] == 1).all()
        assert (found[:, 32:] == 2).all()


@pytest.mark.parametrize("size", [(1, 1), (1, 50), (3, 2), (200, 5)])
@pytest.mark.parametrize("K", [1, 4])
def test_small_photos_and_a_single_category(size, K):
    scores = torch.zeros(K, 2, 3)
    scores[-1] = 1
    found = guided_argmax(scores, photo(224, 64)[:, : size[0], : size[1]], radius=4)
    assert found.dtype == torch.int64
    assert (found == K - 1).all()
