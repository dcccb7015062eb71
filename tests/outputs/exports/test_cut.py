"""Masks cut into annotations, and the label map beside them."""

import numpy as np
import pytest
from exported import categories, noise, objects, plan, ring, same
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from reference.exports import read_labels

from zerolabel.errors import DataError, UsageError
from zerolabel.outputs.exports.items import cut
from zerolabel.outputs.exports.labels import check_names, distinct_colours, write_labels
from zerolabel.types import Category

SHAPES = hnp.array_shapes(min_dims=2, max_dims=2, max_side=8)
IDS = st.sampled_from([0, 1, 2, 3, 255])


def pixels(regions, listed):
    """The annotations of `Regions` as (name, pixels)."""
    return [
        (listed[k].name, {tuple(at) for at in np.argwhere(regions.ids == i).tolist()})
        for i, k in enumerate(regions.categories.tolist())
    ]


@given(mask=hnp.arrays(np.uint8, SHAPES, elements=IDS), parts=st.booleans())
@settings(deadline=None)
def test_annotations_are_those_that_a_walk_finds(mask, parts):
    listed = categories(4)
    found = cut(mask, 4, parts=parts)
    assert same(pixels(found, listed), objects(mask, listed, parts=parts))
    assert (np.diff(found.categories) >= (0 if parts else 1)).all()
    np.testing.assert_array_equal(found.ids == -1, mask == 255)
    for i, (rows, columns) in enumerate(found.boxes):
        ys, xs = np.nonzero(found.ids == i)
        assert found.areas[i] == len(ys)
        assert (rows.start, rows.stop) == (ys.min(), ys.max() + 1)
        assert (columns.start, columns.stop) == (xs.min(), xs.max() + 1)
    np.testing.assert_array_equal(found.paint(np.arange(4, dtype=np.uint8), 255), mask)


def test_parts_that_touch_at_a_corner_are_one():
    found = cut(ring(), 4, parts=True)
    # the inside of the ring is a part of category 0 of its own; 2 lies at the right and at the left
    assert found.categories.tolist() == [0, 0, 1, 2, 2]
    assert found.areas.tolist() == [70, 4, 26, 3, 1]


def test_small_annotations_are_left_out():
    found = cut(ring(), 4, parts=True, minimum=4)
    assert found.areas.tolist() == [70, 4, 26]
    assert (found.ids == -1).sum() == 4 + 3 + 1
    assert cut(ring(), 4, parts=False, minimum=5).areas.tolist() == [74, 26]
    nothing = cut(ring(), 4, parts=False, minimum=1000)
    assert (nothing.areas.tolist(), nothing.boxes) == ([], [])
    assert (nothing.ids == -1).all()


@pytest.mark.parametrize(("k", "none"), [(255, 255), (256, 65535), (300, 65535)])
def test_255_is_a_category_among_more(k, none):
    mask = np.array([[0, 254, none], [k - 1, none, none]], np.uint16 if k > 255 else np.uint8)
    found = cut(mask, k, parts=False)
    assert found.categories.tolist() == [0, 254, *([k - 1] if k > 255 else [])]
    assert (found.ids == -1).sum() == (mask == none).sum()


def test_ids_of_no_category_are_refused():
    with pytest.raises(DataError, match=r"a.png holds ids .*expected 0-3, .*found 9"):
        cut(np.array([[0, 9]], np.uint8), 4, parts=False, path="a.png")


def test_a_mask_without_any_category():
    found = cut(np.full((3, 4), 255, np.uint8), 4, parts=True)
    assert (len(found.areas), len(found.categories), found.boxes) == (0, 0, [])


def test_the_label_map_holds_any_name(tmp_path):
    names = ["a,b", 'say "x"', "日本", "two\nlines", "a: b; c", ""]
    listed = categories(6, names)
    write_labels(tmp_path, listed, range(10, 16))
    found = read_labels(tmp_path)
    assert [found[i][0] for i in range(6)] == names
    assert found[0] == ("a,b", "#4285d4", "10")


def test_colours_become_distinct():
    colours = [(1, 2, 3), (0, 0, 0), (1, 2, 3), (66, 133, 212), (9, 9, 9)]
    listed = [Category(i, str(i), colour) for i, colour in enumerate(colours)]
    found = [tuple(colour) for colour in distinct_colours(listed).tolist()]
    assert len({*found, (0, 0, 0)}) == 6
    assert [found[i] for i in (0, 3, 4)] == [colours[i] for i in (0, 3, 4)]
    many = [Category(i, str(i), (7, 7, 7)) for i in range(300)]
    assert len(np.unique(distinct_colours(many), axis=0)) == 300


def test_names_that_cannot_be_are_said():
    def fault(name):
        return "a comma" if "," in name else ""

    check_names(plan(categories(3, ["a", "b", "A"])), what="X", fault=fault)
    with pytest.raises(UsageError, match=r"Categories 0 and 2 are both called 'a', and X tells"):
        check_names(plan(categories(3, ["a", "b", "a"])), what="X", fault=fault)
    with pytest.raises(UsageError, match=r"1 is called 'b,c', and X cannot hold a comma. .*--csv"):
        check_names(plan(categories(3, ["a", "b,c", "d"])), what="X", fault=fault)
    with pytest.raises(UsageError, match="X cannot hold an empty name"):
        check_names(plan(categories(3, ["a", "", "d"])), what="X", fault=fault)


def test_noise_has_all_there_is():
    mask = noise(0, 4)
    assert set(np.unique(mask)) == {0, 1, 2, 3, 255}
