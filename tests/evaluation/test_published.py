import pytest

from zerolabel.data.spaces import SPACES
from zerolabel.errors import DataError
from zerolabel.evaluation.protocols import PROTOCOLS
from zerolabel.evaluation.published import COLUMNS, fitting, read_published

LINES = """\
alpha,Table 1,Ours,ViT-S/8,voc,voc21,full,miou,42.5,"on val, three seeds"
alpha,Table 1,Ours,ViT-S/8,voc,voc20,full,miou,61.0,
beta,,Theirs,,cocostuff,coco27,picie-320,pixel_accuracy,48.1,
"""


@pytest.fixture
def sheet(tmp_path):
    path = tmp_path / "printed.csv"
    path.write_text(",".join(COLUMNS) + "\n" + LINES)
    return path


def test_numbers_are_read_and_chosen_by_all_three_names(sheet):
    entries = read_published(sheet)
    assert [entry.value for entry in entries] == [42.5, 61.0, 48.1]
    assert entries[0].note == "on val, three seeds"
    assert fitting(entries, dataset="voc", space="voc21", protocol="full") == [entries[0]]
    assert fitting(entries, dataset="voc", space="voc21", protocol="datus") == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("paper,value\n", "expected paper,table,.*found paper,value"),
        ("", "found nothing"),
        (",".join(COLUMNS) + "\na,b,c,d,e,f,g,h,many,\n", "Line 2 .* is no published number"),
        (",".join(COLUMNS) + "\na,b,c,d,e,f,g,h,nan,\n", "Line 2 .* is no published number"),
        (",".join(COLUMNS) + "\na,b,c,d,e,f,g,h,1\n", "expected 10 cells"),
    ],
)
def test_a_damaged_sheet_is_an_error(tmp_path, text, message):
    path = tmp_path / "damaged.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        read_published(path)
    with pytest.raises(DataError, match="cannot be read"):
        read_published(tmp_path / "missing.csv")


def test_the_sheet_of_the_package_speaks_of_protocols_and_spaces_that_exist():
    entries = read_published()
    assert len(entries) > 50
    assert {entry.protocol for entry in entries} - {""} <= set(PROTOCOLS)
    for entry in entries:
        assert entry.space in ("", *SPACES), entry
        assert not entry.space or SPACES[entry.space] == entry.dataset, entry
        assert entry.paper, entry
        assert entry.metric, entry
