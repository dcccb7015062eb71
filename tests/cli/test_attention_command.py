"""`zerolabel attention` as it is typed."""

import json
import re
import shutil
import subprocess
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from zerolabel import backbones
from zerolabel.cli.attention import attention as command
from zerolabel.data.folder import read_image
from zerolabel.jobs.looking.draw import SHOWS

SMALL = ("--backbone", "random-vitt16", "--size", "48")


@pytest.fixture(autouse=True)
def _no_hub(monkeypatch, tmp_path):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


@pytest.fixture
def run(typed):
    return partial(typed, "attention")


@pytest.fixture
def photos(tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    for name in ("a", "b"):
        image = Image.fromarray(rng.integers(0, 256, (50, 70, 3), np.uint8))
        image.save(tmp_path / "photos" / f"{name}.png")
    return tmp_path / "photos"


def test_one_photo(run, photos, tmp_path):
    shows = "heat, overlay,strip,pca"
    code, out, err = run(photos / "a.png", "--out", tmp_path / "out", *SMALL, "--show", shows)
    assert code == 0
    assert "1 image, 4 files" in out
    assert "a-overlay-mean.png" in out
    assert "draw: 1 in " in err
    assert read_image(tmp_path / "out" / "a-heat-mean.png").shape == (50, 70, 3)


def test_a_folder_with_a_damaged_photo_ends_with_3(run, photos, tmp_path):
    (photos / "c.png").write_bytes(b"nothing")
    asked = ("--heads", "all", "--range", "0,0.1", "--upsample", "bilinear", "--mass", "0.5")
    code, out, _ = run(photos, "--out", tmp_path / "out", *SMALL, *asked)
    assert code == 3
    assert "2 images, 6 files" in out
    assert "and 1 more" in out
    assert "1 image could not be read" in out


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (("--range", "1"), "LOW,HIGH"),
        (("--size", "big"), "expected pixels"),
        (("--fps", "0"), "frames per second"),
        (("--show", "heatmap"), "Did you mean 'heat'"),
        (("--backbone", "filterbank"), "dino-vits16"),
        (("--heads", "7"), "heads 0 to 2"),
    ],
)
def test_wrong_usage_ends_with_2(run, photos, tmp_path, asked, words):
    code, _, err = run(photos, "--out", tmp_path / "out", *SMALL, *asked)
    assert code == 2
    assert words in err
    assert not (tmp_path / "out").exists()


def test_auto_is_chosen_as_in_the_other_commands(run, photos, tmp_path, monkeypatch):
    monkeypatch.setattr(backbones, "choose", lambda name, weights: ("random-vitt16", f"not {name}"))
    code, out, err = run(photos / "a.png", "--out", tmp_path / "out", "--size", "48")
    assert code == 0, err
    assert "note: not auto" in out
    job = json.loads((tmp_path / "out" / "run.json").read_text())["job"]
    assert job["backbone"] == "random-vitt16"


def test_missing_weights_name_the_command_to_run(run, photos, tmp_path):
    code, _, err = run(photos, "--out", tmp_path / "out", "--backbone", "dino-vits8")
    assert code == 1
    assert "zerolabel models get dino-vits8" in err


@pytest.mark.skipif(not shutil.which("ffmpeg"), reason="ffmpeg is not on the PATH")
def test_a_video(run, photos, tmp_path):
    film = tmp_path / "film.mp4"
    source = "testsrc2=size=71x51:rate=25:duration=0.2"
    encode = ("-pix_fmt", "yuv444p")
    subprocess.run(
        ["ffmpeg", "-v", "error", "-f", "lavfi", "-i", source, *encode, str(film)], check=True
    )
    code, out, _ = run(film, "--out", tmp_path / "out", *SMALL, "--show", "side-by-side")
    assert code == 0
    assert "5 images, 1 file" in out
    assert "film-side-by-side-mean.mp4" in out


def test_help_names_every_option(run):
    code, out, _ = run("--help")
    assert code == 0
    for word in ("--show", "--heads", "--mass", "--range", "--frames", "--truth", "--weights"):
        assert word in out


def test_the_page_lists_every_option_and_picture():
    page = (Path(__file__).parents[2] / "docs" / "attention.md").read_text(encoding="utf-8")
    found = re.findall(r"^\| `(--[\w/-]+)` \| `?([^|`]+?)`?(?: or `clip`)? \|", page, re.MULTILINE)
    rows = {name: default for name, default in found if default != "picture"}
    given = {"/".join(o.opts + o.secondary_opts): o for o in command.params if o.opts[0][0] == "-"}
    assert set(given) - {"--out"} == set(rows)
    for name, option in given.items():
        if name in rows and isinstance(option.default, str | float) and not option.is_flag:
            assert rows[name] == str(option.default)
    pictures = re.findall(r"^\| `([\w-]+)` \| ", page.partition("## Options")[0], re.MULTILINE)
    assert set(pictures) - {"--show"} == set(SHOWS)
