"""The tables against each other, and against what the data sets' authors say of their ids."""

import hashlib
import os
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from zerolabel.data.files import read_shipped
from zerolabel.data.layouts import LAYOUTS
from zerolabel.data.spaces import SPACES, plain_space, space, spaces_of
from zerolabel.errors import UsageError

DATA = os.environ.get("ZEROLABEL_DATA")
SIZES = {"coco80": 81, "lip19": 20, "lip16": 17, "lip5": 6}  # with the background
REMOVED = {11, 25, 28, 29, 44, 65, 67, 68, 70, 82, 90}  # of COCO, never in its files


def mapped(name):
    """From raw value to id, 255 where it is not scored."""
    found = space(name)
    return {raw: int(found.lut[raw]) for raw in found.known}


@pytest.mark.parametrize("name", SPACES)
def test_every_id_is_used_and_named_once(name):
    found = space(name)
    number = int("".join(c for c in name if c.isdigit()))
    assert len(found.classes) == SIZES.get(name, number)
    assert set(mapped(name).values()) - {255} == set(range(len(found.classes)))
    assert len(set(found.classes)) == len(found.classes)
    assert all(found.classes)
    assert len(found.kinds) == len(found.prompts) == len(found.classes)
    assert set(found.kinds) <= {"thing", "stuff", ""}
    assert all(found.lut[raw] == 255 for raw in range(256) if raw not in found.known)
    assert found.colours is None or found.colours.shape == (len(found.classes), 3)


def test_every_table_has_an_owner_and_every_data_set_with_classes_a_table():
    files = resources.files("zerolabel.data").joinpath("tables").iterdir()
    assert {file.name for file in files} == {f"{name}.csv" for name in SPACES}
    assert set(SPACES.values()) == set(LAYOUTS) - {"bsds500"}
    assert spaces_of("suim") == ("suim8", "suim6", "suim5")


def test_an_unknown_space_names_the_known_ones():
    with pytest.raises(UsageError, match=r"Unknown label space 'voc19'\. Did you mean 'voc2[01]'"):
        space("voc19")


def test_ignored_and_expected_values_in_words():
    assert space("voc20").ignore == (0, 255)
    assert space("voc21").expected == "0-20, 255"
    assert space("stanford8").expected == "-1-7, 255"
    assert space("suim5").ignore == (0, 2, 7)


def test_a_plain_space():
    found = plain_space("street", ("road", "sky"))
    assert found.lut.tolist() == [0, 1] + [255] * 254
    assert found.ignore == (255,)
    assert found.classes == found.prompts == ("road", "sky")


@pytest.mark.parametrize(("whole", "part"), [("voc21", "voc20"), ("context60", "context59")])
def test_without_the_background_ids_are_one_less(whole, part):
    for raw, index in mapped(whole).items():
        assert mapped(part)[raw] == (255 if index in (0, 255) else index - 1)
    assert space(whole).classes[1:] == space(part).classes
    assert space(whole).prompts[1:] == space(part).prompts


def test_voc_colours_are_the_bits_of_the_ids_interleaved():
    for index, found in enumerate(space("voc21").colours.tolist()):
        # bits 0, 1, 2 of the id are bit 7 of red, green, blue; bits 3, 4, 5 are bit 6
        colour = [(index >> c & 1) << 7 | (index >> c + 3 & 1) << 6 for c in range(3)]
        assert found == colour


def test_classes_of_context_are_in_alphabetical_order():
    assert list(space("context59").classes) == sorted(space("context59").classes)


def test_ade20k_ids_are_one_less():
    assert mapped("ade150") == {0: 255} | {raw: raw - 1 for raw in range(1, 151)}
    assert space("ade150").classes[:4] == ("wall", "building", "sky", "floor")
    assert space("ade150").kinds[:4] == ("stuff",) * 4


def test_cityscapes_27_are_ids_less_seven():
    void = dict.fromkeys([-1, *range(7), 255], 255)
    assert mapped("cityscapes27") == void | {raw: raw - 7 for raw in range(7, 34)}


def test_cityscapes_19_are_the_train_ids():
    scored = [7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33]
    found = mapped("cityscapes19")
    assert {raw: i for raw, i in found.items() if i != 255} == {r: i for i, r in enumerate(scored)}
    assert space("cityscapes19").classes == tuple(
        space("cityscapes27").classes[raw - 7] for raw in scored
    )


def test_cityscapes_7_are_the_categories():
    ends = [10, 16, 20, 22, 23, 25, 33]  # last id of flat, construction, object, nature, ...
    expected = {raw: sum(raw > end for end in ends) for raw in range(7, 34)}
    assert {raw: i for raw, i in mapped("cityscapes7").items() if i != 255} == expected
    assert space("cityscapes7").classes == (
        "flat", "construction", "object", "nature", "sky", "human", "vehicle"
    )  # fmt: skip


def test_coco_171_are_ranks_without_the_removed_ids():
    kept = [raw for raw in range(182) if raw not in REMOVED]
    found = mapped("cocostuff171")
    assert found == {raw: i for i, raw in enumerate(kept)} | dict.fromkeys([*REMOVED, 255], 255)
    assert space("cocostuff171").kinds == ("thing",) * 80 + ("stuff",) * 91


def test_coco_80_are_ranks_of_things_after_the_background():
    things = [raw for raw in range(91) if raw not in REMOVED]
    found = mapped("coco80")
    assert found == (
        {raw: 1 + i for i, raw in enumerate(things)}
        | dict.fromkeys(range(91, 182), 0)
        | dict.fromkeys([*REMOVED, 255], 255)
    )
    assert space("coco80").classes == ("background", *space("cocostuff171").classes[:80])


def test_coco_27_has_the_ranges_of_its_things():
    ranges = {  # first and last value of every coarse thing
        9: (0, 0), 11: (1, 8), 8: (9, 14), 7: (15, 24), 6: (25, 32), 10: (33, 42), 5: (43, 50),
        2: (51, 60), 3: (61, 70), 0: (71, 76), 1: (77, 82), 4: (83, 90),
    }  # fmt: skip
    found = mapped("coco27")
    for index, (first, last) in ranges.items():
        assert {found[raw] for raw in range(first, last + 1)} == {index}
    assert set(found) == {*range(182), 255}
    assert all(12 <= found[raw] <= 26 for raw in range(91, 182))
    assert space("coco27").kinds == ("thing",) * 12 + ("stuff",) * 15


def test_coco_27_keeps_its_stuff_together():
    """Fine names say which coarse class they are of, where they name a group."""
    fine, coarse = space("cocostuff171"), space("coco27")
    for raw in set(range(182)) - REMOVED:
        name, group = fine.classes[fine.lut[raw]], coarse.classes[coarse.lut[raw]]
        for word in ("ceiling", "floor", "food", "furniture", "textile", "wall", "window"):
            if raw > 90 and name.startswith(f"{word}-"):
                assert group == f"{word}-stuff", name


def test_coco_15_is_the_stuff_of_the_27():
    for raw, index in mapped("coco27").items():
        assert mapped("coco15")[raw] == (index - 12 if 12 <= index < 255 else 255)
    assert space("coco15").classes == space("coco27").classes[12:]


def test_merges_of_lip():
    assert mapped("lip19") == {raw: raw for raw in range(20)}
    merged = {raw: raw for raw in range(14)} | {14: 14, 15: 14, 16: 15, 17: 15, 18: 16, 19: 16}
    assert mapped("lip16") == merged
    groups = [{0}, {1, 2, 4, 13}, {5, 6, 7, 10, 11, 12}, {3, 14, 15}, {9, 16, 17}, {8, 18, 19}]
    assert mapped("lip5") == {raw: i for i, group in enumerate(groups) for raw in group}


def test_merges_of_suim():
    codes = ["BW", "HD", "PF", "WR", "RO", "RI", "FV", "SR"]  # red, green, blue as bits
    assert mapped("suim8") == {raw: raw for raw in range(8)}
    for raw, colour in enumerate(space("suim8").colours.tolist()):
        assert colour == [255 * (raw >> bit & 1) for bit in (2, 1, 0)]
    six = {"HD": 0, "RO": 1, "FV": 2, "RI": 3, "WR": 4, "BW": 5, "PF": 5, "SR": 5}
    assert mapped("suim6") == {raw: six[code] for raw, code in enumerate(codes)}
    five = {"RO": 0, "FV": 1, "HD": 2, "RI": 3, "WR": 4}
    assert mapped("suim5") == {raw: five.get(code, 255) for raw, code in enumerate(codes)}


def test_camvid_and_stanford():
    assert mapped("camvid11") == {raw: raw for raw in range(11)} | {11: 255}
    assert mapped("stanford8") == {raw: raw for raw in range(8)} | {-1: 255, 255: 255}


def test_the_curated_lists_are_those_of_iic():
    val, train = (read_shipped(f"cocostuff-curated-{s}2017.txt.gz") for s in ("val", "train"))
    assert (len(val), len(train)) == (2175, 49629)
    assert not set(val) & set(train)
    text = "".join(f"{name}\n" for name in val)
    assert hashlib.md5(text.encode()).hexdigest() == "de66cfb97c6ea796c3ba8e001edda199"


@pytest.mark.skipif(DATA is None, reason="needs ZEROLABEL_DATA")
def test_the_table_agrees_with_the_palette_of_the_files():
    folder = Path(DATA) / "voc/VOCdevkit/VOC2012/SegmentationClass"
    with Image.open(sorted(folder.iterdir())[0]) as image:
        palette = np.array(image.getpalette()).reshape(-1, 3)
    np.testing.assert_array_equal(palette[:21], space("voc21").colours)
