"""`zerolabel segment --granularity` as it is typed."""

import pytest
from PIL import Image

from zerolabel.data.synthetic import world

pytestmark = pytest.mark.usefixtures("small_worlds")
FLAGS = ("--method", "kmeans", "--backbone", "filterbank", "--size", "64")


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for sample in world(3, images=3, size=(32, 48), per_image=3):
        Image.fromarray(sample.load()).save(folder / sample.id)
    return folder


@pytest.fixture
def run(typed):
    return lambda *arguments: typed("segment", *arguments, *FLAGS)


def test_several_levels_come_with_their_reports_and_a_page_over_all(run, photos, tmp_path):
    out = tmp_path / "run"
    code, said, steps = run(photos, "--out", out, "--granularity", "4, 2,3", "--no-overlays")
    assert code == 0, steps
    assert said.splitlines() == [
        "3 images (a folder) at 3 levels",
        *(f"{k} categories: {out / f'k{k}' / 'report' / 'index.html'}" for k in (2, 3, 4)),
        f"side by side: {out / 'report' / 'index.html'}",
    ]
    assert (out / "report" / "index.html").is_file()
    assert "k4: masks: 3 in" in steps


def test_unreadable_images_end_with_code_3(run, photos, tmp_path):
    (photos / "broken.jpg").write_text("no image")
    out = tmp_path / "run"
    code, said, _ = run(photos, "--out", out, "--granularity", "2,auto", "--no-report")
    assert code == 3
    lines = said.splitlines()
    assert lines[0] == "3 images (a folder) at 2 levels"
    assert f"2 categories: {out / 'k2'}" in lines
    assert f"1 image could not be read: {out / 'failures.json'}" in lines
    assert any(line.startswith("note: k = ") for line in lines)
    assert not (out / "report").exists()


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("--granularity", "3,x"), "found 'x'"),
        (("--granularity", "3,,5"), "found ''"),
        (("--granularity", "0,5"), "found '0'"),
        (("--granularity", "3,5,3"), "names 3 more than once"),
        (("--granularity", "3,5", "--k", "4"), "Both k = 4 and granularity were given"),
        (("--granularity", "3,5", "--k", "auto"), "Both k = auto and granularity were given"),
        (("--granularity", "3,5", "--set", "k=4"), "Both k = 4 and granularity were given"),
    ],
)
def test_wrong_usage(words, complaint, run, photos, tmp_path):
    code, said, error = run(photos, "--out", tmp_path / "run", *words)
    assert (code, said) == (2, "")
    assert complaint in error
    assert not (tmp_path / "run").exists()
