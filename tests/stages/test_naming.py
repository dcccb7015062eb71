"""What a category looks like, the class that names it, and names that differ."""

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from speaking import COLOURS, DIM, Speaking, photo, truth

from zerolabel.data.folder import from_arrays
from zerolabel.errors import DataError, ImageError, UsageError
from zerolabel.stages.naming import (
    appearances,
    assign,
    by_class,
    cell_shares,
    choose,
    distinct,
)
from zerolabel.stages.words import queries
from zerolabel.store import Store
from zerolabel.types import Sample

TEMPLATES = ("a photo of a {}.", "{}", "this is one {} in the scene.")

# --- cells ---------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(
    st.tuples(st.integers(1, 9), st.integers(1, 9)),
    st.tuples(st.integers(1, 6), st.integers(1, 6)),
    st.integers(0, 99),
)
def test_shares_of_cells_are_areas(shape, grid, seed):
    labels = np.random.default_rng(seed).integers(0, 3, shape).astype(np.uint8)
    labels[labels == 2] = 255  # no category
    found = cell_shares(labels, grid, [0, 1, 7])
    fine = labels.repeat(grid[0], 0).repeat(grid[1], 1)  # each cell now is a block of whole pixels
    for row, k in enumerate([0, 1, 7]):
        blocks = (fine == k).reshape(grid[0], shape[0], grid[1], shape[1])
        np.testing.assert_allclose(found[row], blocks.mean((1, 3)), atol=1e-6)
    assert found.shape == (3, *grid)
    assert found.dtype == np.float32


def shown_world(images=3):
    samples = [from_arrays(f"{i}.png", photo(i)) for i in range(images)]
    return samples, lambda name: truth(int(name.split(".")[0]))


def look(samples, masks, shown, *, K=3, store=None, backbone=None):
    return appearances(
        backbone or Speaking(),
        samples,
        shown,
        masks,
        K=K,
        size=(64, 96),
        store=store or Store(),
    )


def test_a_category_looks_like_the_mean_of_its_cells():
    samples, masks = shown_world()
    shown = {"0.png": [0, 1], "1.png": [1], "2.png": [0, 2]}
    backbone = Speaking()
    found, failures = look(samples, masks, shown, K=4, backbone=backbone)
    expected = torch.zeros(4, DIM, dtype=torch.float64)
    for sample in samples:
        image = torch.from_numpy(sample.load().copy()).permute(2, 0, 1)[None]
        [cells] = F.normalize(backbone.encode(image, want={"dense"}).dense, dim=-1)
        label = masks(sample.id)
        for k in shown[sample.id]:
            for row, col in itertools.product(range(4), range(6)):
                share = (label[16 * row : 16 * row + 16, 16 * col : 16 * col + 16] == k).mean()
                expected[k] += share * cells[row, col].double()
    torch.testing.assert_close(found.double(), F.normalize(expected, dim=1), atol=2e-3, rtol=0)
    assert not found[3].any()
    assert not failures
    codes = torch.stack([backbone.codes[name] for name in COLOURS])
    assert (found[:3] @ codes.T).argmax(1).tolist() == [0, 1, 2]


def test_an_image_is_encoded_once_and_never_again():
    samples, masks = shown_world()
    store, backbone = Store(), Speaking()
    shown = {sample.id: [0, 1, 2] for sample in samples}
    first, _ = look(samples, masks, shown, store=store, backbone=backbone)
    again, _ = look(samples, masks, shown, store=store, backbone=backbone)
    assert backbone.seen == [3]
    torch.testing.assert_close(first, again, atol=0, rtol=0)


def test_what_cannot_be_read_is_left_out():
    samples, masks = shown_world()

    def torn():
        raise ImageError("torn")

    def mask(name):
        if name == "1.png":
            raise DataError("no mask")
        return masks(name)

    samples[0] = Sample("0.png", torn, lambda: "x")
    shown = {sample.id: [0, 1, 2] for sample in samples}
    found, failures = look(samples, mask, shown)
    assert failures == {"0.png": "torn", "1.png": "no mask"}
    alone, _ = look(samples[2:], masks, shown)
    torch.testing.assert_close(found, alone)
    nothing, failures = look(samples[:1], masks, shown, K=5)
    assert nothing.shape[0] == 5
    assert not nothing.any()
    with pytest.raises(UsageError, match="dense is needed"):
        look(samples, masks, shown, backbone=Speaking(gives=("tokens",)))


# --- words ---------------------------------------------------------------------------------------


def test_words_are_means_of_directions_in_templates():
    backbone = Speaking()
    found = queries(backbone, ["red", "sky", "blue", "red"], templates=TEMPLATES, store=Store())
    for word, row in zip(["red", "sky", "blue", "red"], found, strict=True):
        expected = torch.zeros(DIM)
        for template in TEMPLATES:
            [vector] = Speaking().encode_texts([template.replace("{}", word)])
            expected += vector / vector.norm() / len(TEMPLATES)
        torch.testing.assert_close(row, expected / expected.norm())
    assert len(backbone.read) == 3 * len(TEMPLATES)  # red once
    assert found.dtype == torch.float32


def test_words_are_kept_by_backbone_and_templates(tmp_path):
    told = []
    store = Store(tmp_path, report=lambda *what: told.append(what))
    names = ["red", "green", "blue"]
    first, backbone = Speaking(), Speaking()
    found = queries(first, names, templates=TEMPLATES, store=store)
    assert told == [("words", done, 3) for done in range(4)]
    again = queries(backbone, names[::-1], templates=TEMPLATES, store=store)
    assert not backbone.read
    torch.testing.assert_close(found.flip(0), again, atol=0, rtol=0)
    mixed = queries(backbone, ["sky", *names], templates=TEMPLATES, store=store)
    assert backbone.read == [template.replace("{}", "sky") for template in TEMPLATES]
    torch.testing.assert_close(mixed[1:], found, atol=0, rtol=0)
    for other in ({"templates": TEMPLATES[:2]}, {"backbone": Speaking(digest="other")}):
        fresh = other.get("backbone", Speaking())
        queries(fresh, names, templates=other.get("templates", TEMPLATES), store=store)
        assert len(fresh.read) == 3 * len(other.get("templates", TEMPLATES))


@pytest.mark.parametrize(
    ("names", "templates", "said"),
    [
        ([], TEMPLATES, "found 0 words, 3 templates"),
        (["red"], (), "found 1 words, 0 templates"),
        (["red"], ("{}", "a photo"), "found the template 'a photo'"),
    ],
)
def test_words_and_templates_that_cannot_be(names, templates, said):
    with pytest.raises(UsageError, match=said):
        queries(Speaking(), names, templates=templates, store=Store())


def test_signs_in_words_are_no_templates():
    backbone = Speaking()
    queries(backbone, ["{} {0}"], templates=("a {}.",), store=Store())
    assert backbone.read == ["a {} {0}."]


# --- classes -------------------------------------------------------------------------------------


def test_a_class_is_as_good_as_its_best_word():
    cosines = np.array([[0.1, 0.4, 0.2, 0.3], [0.5, 0.2, 0.6, 0.1]])
    scores, called = by_class(cosines, [0, 1, 1, 0], ["a", "b", "c", "d"])
    np.testing.assert_array_equal(scores, [[0.3, 0.4], [0.5, 0.6]])
    assert called == [["d", "b"], ["a", "c"]]


def test_the_best_class_names_and_the_next_are_told():
    scores = np.array([[0.1, 0.5, 0.3, 0.2, 0.4, 0.05, 0.0]])
    [choice] = choose(scores, [list("abcdefg")])
    assert (choice.word, choice.score) == ("b", 0.5)
    assert choice.margin == pytest.approx(0.1)
    assert choice.alternatives == (("e", 0.4), ("c", 0.3), ("d", 0.2), ("a", 0.1))
    [choice] = choose(scores, [list("abcdefg")], picks=np.array([2]), least=0.2)
    assert (choice.word, choice.margin) == ("c", pytest.approx(-0.2))
    assert choice.alternatives == (("b", 0.5), ("e", 0.4))


def test_one_word_ties_and_nothing_known():
    one, unknown = choose(np.array([[0.2], [np.nan]]), [["a"], ["a"]])
    assert (one.word, one.margin, one.alternatives) == ("a", None, ())
    assert unknown is None
    [tied] = choose(np.array([[0.2, 0.2]]), [["a", "b"]])
    assert (tied.word, tied.margin) == ("a", 0)
    assert choose(np.array([[0.0, 0.0]]), [["a", "b"]], least=0.0) == [None]
    assert choose(np.array([[0.5, 0.1]]), [["a", "b"]], picks=np.array([-1])) == [None]


@pytest.mark.parametrize("shape", [(4, 4), (2, 5), (5, 3), (1, 1)])
def test_the_assignment_is_the_best_of_all(shape):
    K, C = shape
    scores = np.random.default_rng(K).normal(size=shape)
    picks = assign(scores)
    kept = picks[picks >= 0]
    assert len(set(kept)) == len(kept) == min(K, C)
    wide = scores if K <= C else scores.T
    best = max(
        sum(row[c] for row, c in zip(wide, order, strict=True))
        for order in itertools.permutations(range(max(K, C)), min(K, C))
    )
    assert sum(scores[k, c] for k, c in enumerate(picks) if c >= 0) == pytest.approx(best)


# --- names ---------------------------------------------------------------------------------------


def test_the_first_in_order_keeps_the_name():
    names = {0: "dog", 1: "cat", 2: "dog", 3: "dog"}
    found = distinct(names, [2, 0, 1, 3], taken=set())
    assert found == {2: "dog", 0: "dog 2", 1: "cat", 3: "dog 3"}


def test_a_number_is_not_taken_from_a_word():
    found = distinct({0: "dog", 1: "dog", 2: "dog 2"}, [0, 1, 2], taken={"dog 3"})
    assert found == {0: "dog", 1: "dog 4", 2: "dog 2"}


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sampled_from(["a", "a 2", "a 3", "b", "a 2 2"]), min_size=1, max_size=8),
    st.sets(st.sampled_from(["a", "a 2", "b 2", "a 4"])),
)
def test_names_differ(names, taken):
    found = distinct(dict(enumerate(names)), range(len(names)), taken=taken)
    assert len(set(found.values()) | taken) == len(names) + len(taken)
    for k, name in found.items():
        assert name == names[k] or name.startswith(f"{names[k]} ")
        first = names.index(names[k]) == k
        assert (name == names[k]) == (first and names[k] not in taken)
