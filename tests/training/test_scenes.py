import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as Pillow
from reference import scenes as slow

from zerolabel.errors import DataError, UsageError
from zerolabel.training.scenes import GREY, SceneConfig, scene

CONFIG = SceneConfig(short=16, crop=14)
SIDES = st.integers(1, 40)
rng = np.random.default_rng(0)
PALETTE = rng.permutation(256 * 8)[:256, None] // np.array([128, 8, 1]) % np.array([16, 16, 8]) * 16
PALETTE = PALETTE.astype(np.uint8)  # 256 colours, 16 or more apart in some channel


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def blocks(height, width, *, cell, classes=6, seed=0):
    """Labels in blocks of cells, some of them 255, and an image whose colour says the label."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, classes, (-(-height // cell), -(-width // cell)))
    ids[rng.random(ids.shape) < 0.1] = 255
    label = ids.repeat(cell, 0).repeat(cell, 1)[:height, :width].astype(np.uint8)
    return PALETTE[label], label


def padding(known, image):
    """Where a scene lies beyond the photo, judged by its colour."""
    grey = torch.tensor(GREY, dtype=torch.uint8)[:, None, None]
    return (image == grey).all(0) & (known == 255)


@settings(max_examples=60, deadline=None)
@given(
    size=st.tuples(SIDES, SIDES),
    short=SIDES,
    crop=SIDES,
    longest=st.sampled_from([1.0, 1.5, 4.0]),
    single=st.sampled_from([0.3, 0.75, 1.0]),
    plain=st.booleans(),
    seed=st.integers(0, 999),
)
def test_equals_the_slow_way(size, short, crop, longest, single, plain, seed):
    image, label = blocks(*size, cell=4, classes=4, seed=seed)
    config = SceneConfig(short=short, crop=crop, longest=longest, single=single, plain=plain)
    seen, known = scene(image, label, config, generator=generator(seed))
    expected, ids, _ = slow.scene(image, label, config, generator=generator(seed))
    assert seen.dtype == known.dtype == torch.uint8
    assert seen.shape == (3, crop, crop)
    np.testing.assert_array_equal(known, ids)
    assert np.abs(seen.permute(1, 2, 0).numpy() - expected).max() <= 1.51  # two roundings
    assert set(known.unique().tolist()) <= {*np.unique(label).tolist(), 255}


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("size", [(60, 90), (150, 40), (33, 257)])
def test_image_and_label_stay_aligned(size, plain):
    image, label = blocks(*size, cell=12)
    config = SceneConfig(short=64, crop=48, ratio=(0.6, 2.0), plain=plain)
    compared = flipped = 0
    for seed in range(20):
        seen, known = scene(image, label, config, generator=generator(seed))
        far = torch.nn.functional.unfold(known[None, None].float(), 5)  # (1, 25, n)
        inner = (far == far[:, :1]).all(1).reshape(44, 44)  # no other label within two pixels
        ids, colours = known[2:-2, 2:-2], seen[:, 2:-2, 2:-2]
        inner &= ~padding(ids, colours)
        expected = torch.from_numpy(PALETTE).int()[ids.long()].permute(2, 0, 1)
        apart = (colours.int() - expected).abs().amax(0)
        assert apart[inner].max() <= 1
        compared += int(inner.sum())
        wrong = (colours.int() - expected.roll(6, 2)).abs().amax(0)
        flipped += int((wrong[inner] > 8).sum())
    assert compared > 2000
    assert flipped > 0.2 * compared  # the palette would tell


def test_the_same_seed_draws_the_same_and_another_does_not():
    image, label = blocks(30, 40, cell=5)
    first, again = (scene(image, label, CONFIG, generator=generator(3)) for _ in range(2))
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    drawn = {
        scene(image, label, CONFIG, generator=generator(s))[0].numpy().tobytes() for s in range(9)
    }
    assert len(drawn) == 9
    source = generator(3)
    scene(image, label, CONFIG, generator=source)
    assert not torch.equal(scene(image, label, CONFIG, generator=source)[0], first[0])


def test_nothing_is_drawn_from_elsewhere_and_nothing_is_changed():
    image, label = blocks(30, 40, cell=5)
    before = image.copy(), label.copy()
    image.flags.writeable = label.flags.writeable = False
    torch.manual_seed(0)
    state = torch.get_rng_state()
    scene(image, label, CONFIG, generator=generator())
    assert torch.equal(torch.get_rng_state(), state)
    np.testing.assert_array_equal(image, before[0])
    np.testing.assert_array_equal(label, before[1])


@pytest.mark.parametrize(
    ("size", "longest", "expected"),
    [
        ((30, 40), 4.0, (15, 20)),  # the shorter side, at half its size
        ((40, 30), 4.0, (20, 15)),
        ((30, 400), 4.0, (4, 60)),  # the longer side
        ((30, 40), 1.0, (11, 15)),
        ((1, 500), 4.0, (1, 60)),
        ((2, 2), 4.0, (15, 15)),
    ],
)
def test_smaller_photos_are_padded_at_the_bottom_and_right(size, longest, expected):
    image = np.full((*size, 3), 200, np.uint8)
    label = np.ones(size, np.uint8)
    config = SceneConfig(short=30, crop=65, ratio=(0.5, 0.5), longest=longest)
    for seed in range(4):  # flipped or not
        seen, known = scene(image, label, config, generator=generator(seed))
        assert (known[: expected[0], : expected[1]] == 1).all()
        assert int((known == 1).sum()) == expected[0] * expected[1]
        assert int((known == 255).sum()) == known.numel() - expected[0] * expected[1]
        assert (seen[:, known == 1] == 200).all()
        assert (seen[:, known == 255] == torch.tensor(GREY)[:, None]).all()


def test_ratios_fill_their_range():
    image = np.full((20, 20, 3), 200, np.uint8)
    config = SceneConfig(short=100, crop=200, ratio=(0.5, 2.0))
    sides = [
        int(
            (scene(image, np.ones((20, 20), np.uint8), config, generator=generator(s))[1] == 1)[
                0
            ].sum()
        )
        for s in range(300)
    ]
    assert 50 <= min(sides) < 55
    assert 195 < max(sides) <= 200
    assert abs(np.mean(sides) - 125) < 8  # uniform


@pytest.mark.parametrize("flip", [0.0, 0.5, 1.0])
def test_flips_are_as_frequent_as_asked(flip):
    image, label = blocks(16, 16, cell=4)
    config = SceneConfig(short=16, crop=16, ratio=(1.0, 1.0), flip=flip)
    count = 0
    for seed in range(200):
        seen, known = scene(image, label, config, generator=generator(seed))
        straight = np.array_equal(known, label)
        assert straight or np.array_equal(known, label[:, ::-1])
        turned = label if straight else label[:, ::-1]
        np.testing.assert_array_equal(seen.permute(1, 2, 0), PALETTE[turned])
        count += not straight
    assert abs(count / 200 - flip) < (0.12 if 0 < flip < 1 else 1e-9)


def shares(label, config, count=200):
    found = []
    for seed in range(count):
        known = scene(
            np.zeros((*label.shape, 3), np.uint8), label, config, generator=generator(seed)
        )[1]
        counts = torch.bincount(known.flatten().long(), minlength=256)[:255]
        found.append((counts.max() / counts.sum()).item())  # no label: not a number
    return np.array(found)


def test_crops_in_which_one_class_prevails_are_drawn_again():
    label = np.zeros((40, 80), np.uint8)
    label[:, 36:44] = 1
    config = {"short": 40, "crop": 12, "ratio": (1.0, 1.0)}
    ruled = shares(label, SceneConfig(**config)) > 0.75
    free = shares(label, SceneConfig(**config, single=1.0)) > 0.75
    p = free.mean()
    assert 0.7 < p < 0.95
    assert abs(ruled.mean() - p**11) < 0.1  # one draw and ten more


def test_unlabelled_pixels_have_no_share():
    label = np.full((40, 40), 255, np.uint8)
    label[::4, ::2], label[1::4, ::2] = 0, 1
    config = SceneConfig(short=40, crop=12, ratio=(1.0, 1.0))
    image = np.zeros((40, 40, 3), np.uint8)
    draws = [slow.scene(image, label, config, generator=generator(s))[2] for s in range(20)]
    assert set(draws) == {1}
    assert (shares(label, config, 20) == 0.5).all()


def test_crops_without_labels_are_drawn_again():
    label = np.full((40, 40), 255, np.uint8)
    label[:9, :9] = 3
    config = {"short": 40, "crop": 12, "ratio": (1.0, 1.0), "single": 1.0}
    empty = np.isnan(shares(label, SceneConfig(**config))).mean()
    assert empty < 0.9**5  # nearly all single draws see none
    nothing = np.full((40, 40), 255, np.uint8)
    assert np.isnan(shares(nothing, SceneConfig(**config), 5)).all()  # and this ends


def test_plain_squashes_everything_into_the_square():
    image, label = blocks(30, 50, cell=10)
    config = SceneConfig(short=7, crop=20, plain=True, flip=0.0)
    seen, known = scene(image, label, config, generator=generator())
    picture = Pillow.fromarray(image).resize((20, 20), Pillow.Resampling.BILINEAR)
    assert np.abs(seen.permute(1, 2, 0).numpy() - np.asarray(picture).astype(int)).max() <= 1
    expected = Pillow.fromarray(label).resize((20, 20), Pillow.Resampling.NEAREST)
    np.testing.assert_array_equal(known, expected)


@pytest.mark.parametrize(
    "label",
    [np.zeros((9, 8), np.uint8), np.zeros((8, 9), np.int64), np.zeros((8, 9, 1), np.uint8)],
)
def test_labels_that_do_not_fit_are_refused(label):
    with pytest.raises(DataError, match=r"uint8 \(8, 9\)"):
        scene(np.zeros((8, 9, 3), np.uint8), label, CONFIG, generator=generator())


@pytest.mark.parametrize(
    "wrong",
    [
        {"short": 0},
        {"crop": 0},
        {"ratio": (0.0, 1.0)},
        {"ratio": (2.0, 1.0)},
        {"longest": 0.5},
        {"single": 0.0},
        {"single": 1.5},
        {"flip": -0.1},
        {"flip": 2.0},
    ],
)
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(UsageError, match="Expected"):
        SceneConfig(**{"short": 16, "crop": 16, **wrong})
