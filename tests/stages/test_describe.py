import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from planted import small_bank, tiny_vit
from reference import crops as reference
from reference.vit import within as slow_within

from zerolabel.data.synthetic import world
from zerolabel.data.transforms import to_tensor
from zerolabel.errors import UsageError
from zerolabel.stages.describe import DESCRIBE, Describe, cut_out, describe, pool, wants
from zerolabel.stages.discover import Encoded
from zerolabel.types import RegionMap

PATCH = 8
MEAN = (124, 116, 104)


def image(seed=0, size=(96, 128)):
    return world(4, images=1, size=size, seed=seed)[0].load()


def region_map(ids, valid, groups=None):
    """Regions that are whole groups, unless something else is said."""
    groups = range(len(valid)) if groups is None else groups
    return RegionMap(ids, np.array(valid, bool), np.array(groups, np.int32))


def regions(*boxes, grid=(12, 16), valid=None):
    """Boxes (top, left, bottom, right) of cells on a background, which is the last region."""
    ids = np.full(grid, len(boxes), np.int32)
    for i, (top, left, bottom, right) in enumerate(boxes):
        ids[top:bottom, left:right] = i
    valid = [True] * len(boxes) + [False] if valid is None else valid
    return region_map(ids, valid)


def organic(seed=0):
    """Two regions whose boxes hold patches of others."""
    generator = np.random.default_rng(seed)
    ids = np.zeros((12, 16), np.int32)
    ids[2:9, 3:14] = generator.integers(0, 2, (7, 11))
    ids[5, 3:14] = 1
    return region_map(ids, [False, True])


def as_array(crop):
    return crop.permute(1, 2, 0).numpy().astype(int)


BOXES = [(0, 0, 1, 1), (3, 3, 5, 5), (2, 2, 5, 5), (0, 1, 2, 6), (4, 0, 11, 2), (1, 3, 6, 12)]


@pytest.mark.parametrize("box", BOXES)
def test_centre_crops_are_those_of_pillow(box):
    photo, r = image(), regions(box)
    (crop,) = cut_out(to_tensor(photo), r, Describe())
    assert crop.shape == (3, 224, 224)
    assert crop.dtype == torch.uint8
    expected = reference.centre_crop(reference.cut_out(photo, r.ids, 0, patch=PATCH))
    assert np.abs(as_array(crop) - expected).max() <= 1


@pytest.mark.parametrize("box", [(0, 0, 1, 16), (0, 0, 12, 3), (5, 1, 8, 14)])
def test_centre_crops_of_long_regions_are_near_those_of_pillow(box):
    photo, r = image(), regions(box)
    (crop,) = cut_out(to_tensor(photo), r, Describe())
    expected = reference.centre_crop(reference.cut_out(photo, r.ids, 0, patch=PATCH))
    difference = np.abs(as_array(crop) - expected)
    # Pillow rounds the long side, all of which is resized there and only the middle here.
    assert difference.mean() < 2
    assert difference.max() <= 20


@pytest.mark.parametrize("fit", ["centercrop", "pad", "stretch"])
@pytest.mark.parametrize(("fill", "colour"), [("black", (0, 0, 0)), ("mean", MEAN), ("none", None)])
def test_what_is_outside_the_region_is_filled(fill, colour, fit):
    photo, r = image(), organic()
    (crop,) = cut_out(to_tensor(photo), r, Describe(fill=fill, crop_fit=fit))
    cut = reference.cut_out(photo, r.ids, 1, patch=PATCH, fill=colour)
    expected = {
        "centercrop": lambda: reference.centre_crop(cut),
        "pad": lambda: reference.pad(cut, fill=colour or (0, 0, 0)),
        "stretch": lambda: reference.stretch(cut),
    }[fit]()
    difference = np.abs(as_array(crop) - expected)
    assert difference.max() <= 2
    assert (difference > 1).mean() < 1e-3


def test_mean_is_nearest_to_zero_after_normalisation():
    backbone = tiny_vit()
    flat = torch.tensor(MEAN, dtype=torch.uint8)[:, None, None]
    normalised = (flat / 255 - backbone._mean) / backbone._std
    assert normalised.abs().max() <= 0.5 / 255 / backbone._std.min()


@pytest.mark.parametrize("fit", ["pad", "stretch"])
@pytest.mark.parametrize("box", BOXES)
def test_pad_and_stretch_keep_the_whole_crop(box, fit):
    photo, r = image(), regions(box)
    (crop,) = cut_out(to_tensor(photo), r, Describe(crop_fit=fit, crop_size=96))
    cut = reference.cut_out(photo, r.ids, 0, patch=PATCH)
    expected = getattr(reference, fit)(cut, size=96)
    difference = np.abs(as_array(crop) - expected)
    assert difference.max() <= 2
    assert (difference > 1).mean() < 1e-3


def test_crop_sizes_can_be_chosen():
    photo, r = image(), regions((2, 2, 7, 8))
    options = Describe(crop_resize=48, crop_size=40)
    (crop,) = cut_out(to_tensor(photo), r, options)
    cut = reference.cut_out(photo, r.ids, 0, patch=PATCH)
    assert np.abs(as_array(crop) - reference.centre_crop(cut, resize=48, size=40)).max() <= 1


def test_only_valid_regions_are_cut_in_their_order():
    photo = np.zeros((96, 128, 3), np.uint8)
    boxes = [(0, 0, 2, 2), (4, 4, 7, 7), (8, 0, 12, 5), (0, 10, 3, 14)]
    for i, (top, left, bottom, right) in enumerate(boxes):
        photo[8 * top : 8 * bottom, 8 * left : 8 * right] = 50 * (i + 1)
    r = regions(*boxes, valid=[True, False, True, True, False])
    found = cut_out(to_tensor(photo), r, Describe())
    assert [int(crop.float().mean().round()) for crop in found] == [50, 150, 200]


def test_pooling_equals_a_loop_over_patches():
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(5, 7, 6, generator=generator)
    ids = np.random.default_rng(0).permutation(np.arange(35) % 4).reshape(5, 7).astype(np.int32)
    found = pool(features, region_map(ids, [True] * 4))
    for region in range(4):
        patches = [features[i, j] for i in range(5) for j in range(7) if ids[i, j] == region]
        torch.testing.assert_close(found[region], torch.stack(patches).mean(0))


def look(backbone, photos):
    """Everything that a description may look at, and made-up concepts for three groups."""
    batch = torch.stack([to_tensor(photo) for photo in photos])
    found = backbone.encode(batch, want={"tokens", "context"} & backbone.gives)
    contexts = [None] * len(batch) if found.context is None else found.context
    concepts = torch.randn(len(batch), 3, 64, generator=torch.Generator().manual_seed(0))
    return batch, [
        Encoded(tokens, context=context, concepts=own)
        for tokens, context, own in zip(found.tokens, contexts, concepts, strict=True)
    ]


def described(name, backbone, photos, maps, **options):
    batch, seen = look(backbone, photos)
    return describe(batch, maps, seen, backbone, Describe(describe=name, **options))


def same(found, expected, atol=1e-5):
    expected = torch.nn.functional.normalize(torch.stack(list(expected)), dim=1)
    torch.testing.assert_close(found, expected, atol=atol, rtol=0)


@pytest.mark.parametrize("name", DESCRIBE)
def test_every_description_has_one_unit_vector_per_valid_region_in_order(name):
    backbone, photos = tiny_vit(), [image(0), image(1)]
    maps = [organic(), regions((0, 0, 3, 4), (5, 5, 12, 9), valid=[True, False, True])]
    both = described(name, backbone, photos, maps)
    assert both.shape == (3, 64)
    assert both.dtype == torch.float32
    torch.testing.assert_close(both.norm(dim=1), torch.ones(3))
    batch, seen = look(backbone, photos)
    options = Describe(describe=name)
    apart = [
        describe(batch[i : i + 1], maps[i : i + 1], seen[i : i + 1], backbone, options)
        for i in range(2)
    ]
    torch.testing.assert_close(both, torch.cat(apart), atol=1e-5, rtol=0)
    assert (both[0] - both[1]).abs().max() > 1e-3


def test_pool_describes_by_the_mean_patch():
    photos, maps = [image(0), image(1)], [organic(), regions((0, 0, 3, 4), valid=[True, False])]
    _, seen = look(tiny_vit(), photos)
    pooled = [pool(own.features, r) for own, r in zip(seen, maps, strict=True)]
    same(described("pool", tiny_vit(), photos, maps), [pooled[0][1], pooled[1][0]])


def test_concept_describes_by_the_concept_of_the_group():
    photos, ids = [image(0), image(1)], regions((0, 0, 3, 4), (5, 5, 12, 9)).ids
    maps = [  # two pieces of one group; the second region of the second image is noise
        region_map(ids, [True, True, True], groups=[2, 0, 2]),
        region_map(ids, [True, False, True], groups=[1, 2, 0]),
    ]
    _, seen = look(tiny_vit(), photos)
    first, second = (own.concepts for own in seen)
    expected = [first[2], first[0], first[2], second[1], second[0]]
    same(described("concept", tiny_vit(), photos, maps), expected)


def test_masked_cls_equals_a_masked_attention_matrix():
    backbone, photos = tiny_vit(), [image(0), image(1)]
    maps = [organic(), regions((0, 0, 3, 4), (5, 5, 12, 9), valid=[True, False, True])]
    _, seen = look(backbone, photos)
    found = described("masked-cls", backbone, photos, maps)
    state, config = backbone.net.double().state_dict(), backbone.net.config
    expected = []
    for own, r in zip(seen, maps, strict=True):
        for region in np.flatnonzero(r.valid):
            mask, context = torch.from_numpy(r.ids == region), own.context.double()
            cls = slow_within(context, state, mask, depth=config.depth, heads=config.heads)
            expected.append(cls.float())
    same(found, expected)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), count=st.integers(2, 6))
def test_masked_cls_of_a_region_depends_on_no_other_region(seed, count):
    generator = np.random.default_rng(seed)
    ids = np.sort(generator.permutation(np.arange(12 * 16) % count)).reshape(12, 16)
    ids = generator.permuted(ids, axis=1).astype(np.int32)  # every row holds a few regions
    valid = generator.random(count) < 0.7
    valid[0] = True
    backbone, photos = tiny_vit(), [image(seed % 3)]
    found = described("masked-cls", backbone, photos, [region_map(ids, valid)])
    rest = region_map(np.minimum(ids, 1), [True, False])  # all others are one region, and noise
    alone = described("masked-cls", backbone, photos, [rest])
    torch.testing.assert_close(found[:1], alone, atol=1e-5, rtol=0)
    assert found.shape == (valid.sum(), 64)


def test_what_a_description_looks_at():
    assert wants(Describe(describe="masked-cls")) == {"context"}
    assert all(not wants(Describe(describe=name)) for name in ("crop-cls", "pool", "concept"))


def test_crop_cls_describes_by_the_cls_token_of_the_crop():
    backbone, r = tiny_vit(), regions((0, 0, 3, 4), (5, 5, 12, 9))
    found = described("crop-cls", backbone, [image()], [r])
    for i in range(2):
        crop = reference.centre_crop(reference.cut_out(image(), r.ids, i, patch=PATCH))
        cls = backbone.encode(to_tensor(crop)[None], want={"cls"}).cls[0]
        torch.testing.assert_close(found[i], cls / cls.norm(), atol=2e-3, rtol=0)


@pytest.mark.parametrize("batch", [1, 2, 3, 7])
def test_the_size_of_a_crop_batch_does_not_matter(batch):
    maps = [regions((0, 0, 3, 4), (5, 5, 12, 9), (0, 8, 4, 16), (4, 0, 12, 4)), organic()]
    photos = [image(0), image(1)]
    one = described("crop-cls", tiny_vit(), photos, maps)
    other = described("crop-cls", tiny_vit(), photos, maps, crop_batch=batch)
    torch.testing.assert_close(one, other, atol=1e-5, rtol=0)


def test_pixels_beyond_the_grid_take_no_part():
    backbone, r = tiny_vit(), regions((0, 0, 2, 2), grid=(3, 4))
    large = image(size=(31, 38))  # 3 x 4 cells of 8 pixels, and a rest
    exact = large[:24, :32]
    for name in DESCRIBE:
        found = described(name, backbone, [large], [r])
        torch.testing.assert_close(found, described(name, backbone, [exact], [r]))


def test_wrong_settings_are_explained():
    backbone, r = tiny_vit(), regions((0, 0, 3, 4))

    def attempt(name="crop-cls", backbone=backbone, **options):
        return described(name, backbone, [image()], [r], **options)

    with pytest.raises(UsageError, match="Unknown describe stage 'crop'.*Did you mean 'crop-cls'"):
        attempt("crop")
    with pytest.raises(UsageError, match="fill must be .*'white'"):
        attempt(fill="white")
    with pytest.raises(UsageError, match="crop_fit must be .*'crop'"):
        attempt(crop_fit="crop")
    with pytest.raises(
        UsageError, match=r"crop_resize must be at least crop_size \(224\), got 200"
    ):
        attempt(crop_resize=200)
    for wrong in ({"crop_batch": 0}, {"crop_size": 0}):
        with pytest.raises(UsageError, match="at least 1, got"):
            attempt(**wrong)
    bank = small_bank().learn([to_tensor(image())[None]])
    with pytest.raises(UsageError, match="gives tokens, but cls is needed.*dino-vits8"):
        attempt(backbone=bank)
    with pytest.raises(UsageError, match="gives tokens, but context is needed.*dino-vits8"):
        attempt("masked-cls", backbone=bank)


@pytest.mark.parametrize("name", ["masked-cls", "concept"])
def test_what_was_not_looked_at_is_missed(name):
    backbone, r = tiny_vit(), regions((0, 0, 3, 4))
    batch, seen = look(backbone, [image()])
    with pytest.raises(UsageError, match=f"To describe by {name}, .*another --describe"):
        describe(batch, [r], [Encoded(seen[0].features)], backbone, Describe(describe=name))


@pytest.mark.parametrize("group", [-1, 3])
def test_groups_that_are_no_concepts_are_refused(group):
    r = region_map(np.zeros((12, 16), np.int32), [True], groups=[group])
    with pytest.raises(UsageError, match="regions must come from concepts"):
        described("concept", tiny_vit(), [image()], [r])
