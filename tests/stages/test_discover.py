import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch.nn.functional import normalize

from zerolabel.errors import UsageError
from zerolabel.ops.cluster import kmeans
from zerolabel.stages import discover as stage
from zerolabel.stages.discover import (
    BACKGROUND,
    DISCOVER,
    Discover,
    Encoded,
    discover,
    each,
    needs,
    similarities,
)
from zerolabel.types import Features

GROUPS = hnp.arrays(
    np.int32, hnp.array_shapes(min_dims=2, max_dims=2, max_side=7), elements=st.integers(0, 2)
)
ANY = Encoded(torch.zeros(1, 1, 1))


def encoded(features):
    """An image whose two heads look at its first and second channel, with three means of it."""
    maps = features[..., :2].permute(2, 0, 1).clamp_min(0).contiguous()
    x = normalize(features.flatten(0, 1), dim=1)
    return Encoded(features, maps, concepts=kmeans(x, min(3, len(x)), seed=0).centroids)


@pytest.fixture
def plant(monkeypatch):
    """Make groups the answer of a discovery."""

    def answer(groups):
        monkeypatch.setitem(DISCOVER, "planted", lambda image, options: np.asarray(groups))

    return answer


def planted(**options):
    return discover(ANY, Discover(discover="planted", **options))


def test_a_region_of_more_than_five_patches_is_valid(plant):
    plant([[0, 0, 0, 1, 1, 1], [0, 0, 2, 1, 1, 1]])  # of 5, 6 and 1 patches
    regions = planted()
    np.testing.assert_array_equal(regions.ids, [[0, 0, 0, 1, 1, 1], [0, 0, 2, 1, 1, 1]])
    assert regions.valid.tolist() == [False, True, False]
    assert planted(minimum=5).valid.tolist() == [True, True, False]
    assert planted(minimum=1).valid.all()


def test_groups_are_split_into_connected_regions(plant):
    plant([[7, 7, 3, 7], [7, 7, 3, 7], [3, 3, 7, 7]])
    eight = planted(minimum=1)
    np.testing.assert_array_equal(eight.ids, [[0, 0, 1, 0], [0, 0, 1, 0], [1, 1, 0, 0]])
    four = planted(minimum=1, connectivity=4)
    np.testing.assert_array_equal(four.ids, [[0, 0, 1, 2], [0, 0, 1, 2], [3, 3, 2, 2]])
    with pytest.raises(UsageError, match="connectivity 4 or 8"):
        planted(connectivity=6)


def test_an_image_of_small_regions_keeps_its_largest(plant):
    plant([[0, 0, 0, 1, 1, 2]])
    assert planted().valid.tolist() == [True, False, False]


@given(groups=GROUPS, minimum=st.integers(0, 9), connectivity=st.sampled_from([4, 8]))
@settings(deadline=None)
def test_every_region_map_keeps_its_promises(groups, minimum, connectivity):
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(DISCOVER, "planted", lambda image, options: groups)
        regions = planted(minimum=minimum, connectivity=connectivity)
    assert regions.ids.dtype == np.int32
    assert regions.ids.shape == groups.shape
    sizes = np.bincount(regions.ids.ravel())
    assert (sizes > 0).all()
    assert len(sizes) == regions.count == len(regions.valid)
    assert regions.valid.any()
    assert sizes[regions.valid].min() >= min(minimum, sizes.max())
    assert sizes[~regions.valid].max(initial=-1) < minimum
    for region in range(regions.count):
        assert len(np.unique(groups[regions.ids == region])) == 1


def parts(noise=0.2, seed=0):
    """A grid of 8 x 10 patches whose left, right and bottom features point away from each other."""
    truth = np.zeros((8, 10), int)
    truth[:, 5:] = 1
    truth[5:] = 2
    directions = torch.tensor([[2.0, -1, -1], [-1, 2, -1], [-1, -1, 2]])
    generator = torch.Generator().manual_seed(seed)
    return directions[truth] + noise * torch.randn(8, 10, 3, generator=generator), truth


@pytest.mark.parametrize("name", DISCOVER)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("merge", [0.8, 1.0])
def test_every_discovery_finds_planted_parts(name, weighted, merge):
    features, truth = parts()
    options = {"segments": 3, "weighted": weighted, "mass": 1.0, "heads": "all", "merge": merge}
    regions = discover(encoded(features), Discover(discover=name, **options))
    np.testing.assert_array_equal(regions.ids, truth)
    assert regions.valid.all()


@pytest.mark.parametrize("name", DISCOVER)
@pytest.mark.parametrize("size", [(1, 1), (1, 2), (2, 3), (5, 1)])
def test_every_discovery_manages_tiny_grids_and_equal_patches(name, size):
    for features in (torch.ones(*size, 3), torch.zeros(*size, 3), torch.randn(*size, 3)):
        regions = discover(encoded(features), Discover(discover=name))
        assert regions.ids.shape == size
        assert regions.valid.any()


@pytest.mark.parametrize("name", DISCOVER)
def test_every_discovery_is_repeatable(name):
    features, _ = parts(noise=2)
    first, second = (
        discover(encoded(features), Discover(discover=name, starts=3)) for _ in range(2)
    )
    np.testing.assert_array_equal(first.ids, second.ids)


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def slow_nearest(features, concepts):
    """The concept of every patch by its cosine, one by one, and these cosines."""
    found = np.zeros((len(concepts), *features.shape[:2]))
    for at in np.ndindex(found.shape):
        a, b = features[at[1:]].double().numpy(), concepts[at[0]].double().numpy()
        found[at] = (a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum())
    return found.argmax(0), found


@pytest.mark.parametrize("seed", range(4))
def test_patches_go_to_the_concept_that_they_are_most_like(seed):
    features, concepts = draw(5, 6, 4, seed=seed), draw(5, 4, seed=seed + 50)
    lengths = torch.arange(1.0, 6)[:, None]
    image = Encoded(features, concepts=concepts * lengths)  # lengths of concepts do not matter
    nearest, cosines = slow_nearest(features, concepts)
    groups = DISCOVER["concepts"](image, Discover(merge=1.0))
    assert groups.dtype == np.int32
    np.testing.assert_array_equal(groups, nearest)
    np.testing.assert_allclose(similarities(image), cosines, atol=1e-6)


def test_concepts_that_no_patch_is_like_vanish():
    features, truth = parts()
    means = [features[truth == i].mean(0) for i in range(3)]
    concepts = torch.stack([-means[0], means[2], means[1], -means[1], means[0]])
    options = Discover(discover="concepts", split=False, minimum=1, merge=1.0)
    regions = discover(Encoded(features, concepts=concepts), options)
    assert regions.groups.tolist() == [1, 2, 4]
    np.testing.assert_array_equal(regions.groups[regions.ids], np.array([4, 2, 1])[truth])


@pytest.mark.parametrize("order", [[0, 1, 2, 3], [3, 2, 0, 1]])
def test_concepts_that_are_nearly_one_are_merged_under_the_lowest_id(order):
    features, truth = parts()
    means = [features[truth == i].mean(0) for i in range(3)]
    aside = torch.tensor([0.0, 0.5, -0.5])  # 33 degrees between the two, so a cosine of 0.84
    concepts = torch.stack([means[0] + aside, *means[1:], means[0] - aside])[order]
    image = Encoded(features, concepts=concepts)
    apart = DISCOVER["concepts"](image, Discover(merge=0.86))
    two = {order.index(0), order.index(3)}
    assert set(np.unique(apart[truth == 0])) == two
    merged = DISCOVER["concepts"](image, Discover(merge=0.82))
    homes = np.array([min(two), order.index(1), order.index(2)])
    np.testing.assert_array_equal(merged, homes[truth])


def test_concepts_are_merged_one_after_another_but_not_over_one_that_is_not_used():
    """Three at 0, 30 and 60 degrees; without patches at 30, nothing links the others."""
    angles = torch.tensor([0.0, 30, 60]) * torch.pi / 180
    concepts = torch.stack([angles.cos(), angles.sin()], 1)
    chain = Encoded(concepts[None], concepts=concepts)
    assert DISCOVER["concepts"](chain, Discover(merge=0.8)).tolist() == [[0, 0, 0]]
    assert DISCOVER["concepts"](chain, Discover(merge=0.9)).tolist() == [[0, 1, 2]]
    ends = Encoded(concepts[None, [2, 0]], concepts=concepts)
    assert DISCOVER["concepts"](ends, Discover(merge=0.8)).tolist() == [[2, 0]]


def test_concepts_must_be_there():
    assert needs(Discover(discover="concepts")) == {"concepts"}
    with pytest.raises(UsageError, match="method that learns them is needed, such as acseg"):
        discover(ANY, Discover(discover="concepts"))


def test_a_batch_is_cut_into_images():
    seen = Features(attention=draw(2, 3, 4, 5), context=draw(2, 7, 8))
    features, concepts = draw(2, 4, 5, 6), draw(2, 3, 6)
    found = each(seen, features, concepts)
    assert len(found) == 2
    for i, image in enumerate(found):
        assert torch.equal(image.features, features[i])
        assert torch.equal(image.attention, seen.attention[i])
        assert torch.equal(image.context, seen.context[i])
        assert torch.equal(image.concepts, concepts[i])
        assert image.received is None
    assert each(Features(), features)[1].concepts is None


def test_louvain_gets_the_graph_and_the_options(monkeypatch):
    seen = {}

    def louvain(graph, **options):
        seen.update(options, graph=graph)
        return np.zeros(len(graph), np.int32)

    monkeypatch.setattr(stage, "louvain", louvain)
    features = torch.tensor([[[1.0, 0], [1, 1]], [[-1, 0], [0, 2]]])
    discover(Encoded(features), Discover(starts=1))
    binary = [[1, 1, 0, 0], [1, 1, 0, 1], [0, 0, 1, 0], [0, 1, 0, 1]]
    np.testing.assert_array_equal(seen["graph"], binary)
    assert (seen["resolution"], seen["starts"], seen["seed"]) == (1.0, 1, 0)
    options = Discover(weighted=True, self_loops=False, resolution=2.0, starts=3, seed=5)
    discover(Encoded(features), options)
    weighted = [[0, 1, 0, 0], [1, 0, 0, 2], [0, 0, 0, 0], [0, 2, 0, 0]]
    np.testing.assert_array_equal(seen["graph"], weighted)
    assert (seen["resolution"], seen["starts"], seen["seed"]) == (2.0, 3, 5)


def test_kmeans_makes_at_most_as_many_groups_as_asked():
    features = torch.randn(6, 6, 5, generator=torch.Generator().manual_seed(0))
    groups = DISCOVER["kmeans"](Encoded(features), Discover(segments=4))
    assert len(np.unique(groups)) == 4
    scaled = DISCOVER["kmeans"](Encoded(features * torch.rand(6, 6, 1) * 9), Discover(segments=4))
    np.testing.assert_array_equal(groups, scaled)  # lengths of features do not matter


def test_an_unknown_name_is_explained():
    with pytest.raises(
        UsageError, match="Unknown discover stage 'louvian'.*Did you mean 'louvain'"
    ):
        discover(ANY, Discover(discover="louvian"))


def test_without_the_split_the_raw_groups_stay(plant):
    plant([[4, 7, 4], [7, 7, 4]])
    regions = planted(split=False, minimum=1)
    np.testing.assert_array_equal(regions.ids, [[0, 1, 0], [1, 1, 0]])
    assert planted(minimum=1, connectivity=4).count == 3


def test_a_background_is_one_last_region_and_never_noise(plant):
    plant([[4, 4, -1, 4], [-1, -1, -1, 4], [4, 4, 4, -1]])  # two parts, and two of background
    regions = planted(minimum=3)
    np.testing.assert_array_equal(regions.ids, [[0, 0, 2, 1], [2, 2, 2, 1], [1, 1, 1, 2]])
    assert regions.valid.tolist() == [False, True, True]
    assert planted(minimum=99).valid.tolist() == [False, True, True]  # the largest part stays
    plant([[1, 1, 1, 1, -1, 1]])
    assert planted(minimum=4).valid.tolist() == [True, False, True]
    plant([[-1, -1]])
    assert planted().valid.tolist() == [True]
    plant([[3, -1, 3]])
    raw = planted(split=False)
    np.testing.assert_array_equal(raw.ids, [[0, 1, 0]])
    assert raw.valid.all()


def slow_mask(values, mass):
    """Keep patches from the strongest on until they hold the mass."""
    order = sorted(range(values.size), key=lambda i: (values.flat[i], i), reverse=True)
    mask, held = np.zeros(values.size, bool), 0.0
    for i in order:
        if held >= mass * values.sum():
            break
        mask[i], held = True, held + values.flat[i]
    return mask.reshape(values.shape)


def slow_groups(maps, mass, heads):
    """Groups by attention, patch by patch."""
    masks = [slow_mask(m, mass) for m in maps]
    groups = np.full(maps[0].shape, BACKGROUND)
    if heads == "mean":
        groups[slow_mask(sum(maps) / len(maps), mass)] = 0
        return groups
    for at in np.ndindex(groups.shape):
        keeping = [i for i, mask in enumerate(masks) if mask[at] and heads in ("union", "all", i)]
        if keeping:
            best = max(keeping, key=lambda i: maps[i][at] / maps[i].sum())
            groups[at] = best if heads == "all" else 0
    return groups


@pytest.mark.parametrize("heads", ["mean", "union", "all", 0, 2])
@pytest.mark.parametrize("mass", [0.3, 0.6, 0.95])
def test_attention_groups_are_those_of_a_loop(heads, mass):
    generator = torch.Generator().manual_seed(1)
    maps = torch.rand(3, 7, 9, generator=generator, dtype=torch.float64) ** 4
    maps[1] *= 5
    image = Encoded(torch.zeros(7, 9, 2), maps)
    groups = DISCOVER["attention"](image, Discover(mass=mass, heads=heads))
    assert groups.dtype == np.int32
    np.testing.assert_array_equal(groups, slow_groups(maps.numpy(), mass, heads))


def test_attention_is_cut_into_connected_objects():
    attention = torch.full((1, 6, 9), 0.01)
    attention[0, :3, :2] = attention[0, 3:, 6:] = 1.0
    options = Discover(discover="attention", mass=0.97)
    regions = discover(Encoded(torch.zeros(6, 9, 2), attention), options)
    expected = np.full((6, 9), 2)
    expected[:3, :2], expected[3:, 6:] = 0, 1
    np.testing.assert_array_equal(regions.ids, expected)
    assert regions.valid.all()


def test_an_image_without_attention_is_all_background():
    options = Discover(discover="attention")
    for heads in ("mean", "union", "all", 1):
        image = Encoded(torch.zeros(2, 3, 4), torch.zeros(2, 2, 3))
        regions = discover(image, Discover(discover="attention", heads=heads))
        assert (regions.ids == 0).all()
        assert regions.valid.tolist() == [True]
    assert needs(options) == {"attention"}
    assert needs(Discover()) == set()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"heads": "best"}, "Unknown choice of heads 'best'.*Known: all, mean, union"),
        ({"heads": 2}, "heads 0 to 1; there is no head 2"),
        ({"mass": 1.5}, "share, 0..1, found 1.5"),
    ],
)
def test_wrong_options_of_attention_are_explained(changes, message):
    image = Encoded(torch.zeros(2, 3, 4), torch.ones(2, 2, 3))
    with pytest.raises(UsageError, match=message):
        discover(image, Discover(discover="attention", **changes))


def test_attention_must_be_there():
    with pytest.raises(UsageError, match="attention of the CLS token is needed"):
        discover(ANY, Discover(discover="attention"))
