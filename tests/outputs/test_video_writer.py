"""Clips on disk: what was written comes back, at its rate and size, or nothing is there."""

import shutil
import subprocess
import tracemalloc
from fractions import Fraction

import numpy as np
import pytest
from PIL import Image

from zerolabel.data import ffmpeg
from zerolabel.data.video import open_clip
from zerolabel.errors import StoreError, UsageError
from zerolabel.outputs.video import open_video

needs_ffmpeg = pytest.mark.skipif(
    not (shutil.which("ffmpeg") and shutil.which("ffprobe")), reason="ffmpeg is not on the PATH"
)
NTSC = Fraction(30000, 1001)
KINDS = [pytest.param("clip.mp4", marks=needs_ffmpeg), "clip.gif", "clip"]


def frames(count=8, size=(40, 60)):
    """A bright square that wanders over a coloured ground."""
    for i in range(count):
        image = np.zeros((*size, 3), np.uint8)
        image[:] = (30, 90, 160)
        image[8:20, 3 * i : 3 * i + 16] = (240, 200, 40)
        yield image


def write(path, images, *, size=(40, 60), fps=Fraction(25)):
    with open_video(path, size=size, fps=fps) as put:
        for image in images:
            put(image)


def left(folder):
    return sorted(path.name for path in folder.rglob("*"))


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("size", [(40, 60), (41, 63)])
def test_what_was_written_comes_back(tmp_path, name, size):
    write(tmp_path / name, frames(size=size), size=size)
    clip = open_clip(tmp_path / name)
    grown = tuple(side + side % 2 for side in size) if name.endswith("mp4") else size
    assert clip.size == grown
    assert clip.count == 8
    found = list(clip.frames())
    assert len(found) == 8
    for image, expected in zip(found, frames(size=size), strict=True):
        off = np.abs(image[: size[0], : size[1]].astype(int) - expected)
        assert off.mean() < 4
        assert off[10:18, 30:].mean() < 10  # no trace of another frame's square


@needs_ffmpeg
@pytest.mark.parametrize("fps", [Fraction(25), NTSC, Fraction(24000, 1001), Fraction(7, 2)])
def test_a_video_keeps_its_rate(tmp_path, fps):
    write(tmp_path / "a.mp4", frames(20), fps=fps)
    clip = open_clip(tmp_path / "a.mp4")
    assert clip.fps == fps
    assert clip.count == 20


@needs_ffmpeg
def test_every_player_can_show_it(tmp_path):
    write(tmp_path / "a.mp4", frames(size=(41, 63)), size=(41, 63))
    facts = ffmpeg.probe(tmp_path / "a.mp4")
    assert facts["pix_fmt"] == "yuv420p"
    assert (facts["width"], facts["height"]) == (64, 42)
    assert facts["color_space"] == "bt709"
    data = (tmp_path / "a.mp4").read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")  # it plays before it is whole


@needs_ffmpeg
def test_without_x264_it_is_mpeg4(tmp_path, monkeypatch):
    monkeypatch.setattr("zerolabel.outputs.video.encoder", lambda: ("-c:v", "mpeg4", "-q:v", "3"))
    write(tmp_path / "a.mp4", frames())
    assert ffmpeg.probe(tmp_path / "a.mp4")["codec_name"] == "mpeg4"
    assert len(list(open_clip(tmp_path / "a.mp4").frames())) == 8


def test_the_encoder_is_one_that_is_there(monkeypatch):
    said = {b" V....D libx264  \n": "libx264", b" V....D mpeg4  \n": "mpeg4"}
    for output, name in said.items():
        result = subprocess.CompletedProcess([], 0, stdout=output)
        monkeypatch.setattr(ffmpeg, "program", lambda name: name)
        monkeypatch.setattr(subprocess, "run", lambda *a, result=result, **k: result)
        ffmpeg.encoder.cache_clear()
        assert ffmpeg.encoder()[1] == name
    ffmpeg.encoder.cache_clear()


@pytest.mark.parametrize("fps", [Fraction(25), NTSC, Fraction(7), Fraction(60)])
def test_a_gif_stays_with_the_clock(tmp_path, fps):
    write(tmp_path / "a.gif", frames(30), fps=fps)
    with Image.open(tmp_path / "a.gif") as image:
        shown = 0
        for i in range(image.n_frames):
            image.seek(i)
            shown += image.info["duration"]
        assert image.info["loop"] == 0
        assert image.n_frames == 30
    assert shown == pytest.approx(1000 * 30 / min(fps, 50), abs=6)


@pytest.mark.parametrize("colours", [1, 2, 3, 17, 256])
def test_a_gif_of_any_number_of_colours(tmp_path, colours):
    rng = np.random.default_rng(colours)
    table = rng.permutation(256)[:colours].astype(np.uint8)
    image = np.repeat(table[rng.integers(0, colours, (40, 60))][..., None], 3, axis=2)
    write(tmp_path / "a.gif", [image, image])
    found = list(open_clip(tmp_path / "a.gif").frames())
    assert all(np.abs(one.astype(int) - image).max() <= 2 for one in found)


def test_frames_are_numbered(tmp_path):
    write(tmp_path / "clip", frames(11))
    assert left(tmp_path / "clip") == [f"frame-{i:06d}.png" for i in range(1, 12)]
    write(tmp_path / "clip", frames(3))  # again, and fewer
    assert left(tmp_path / "clip") == [f"frame-{i:06d}.png" for i in range(1, 4)]


def test_a_folder_of_something_else_is_not_replaced(tmp_path):
    (tmp_path / "clip").mkdir()
    (tmp_path / "clip" / "thesis.txt").write_text("years")
    with pytest.raises(StoreError, match="other files"):
        write(tmp_path / "clip", frames(2))
    assert left(tmp_path) == ["clip", "thesis.txt"]


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_an_interruption_leaves_nothing(tmp_path, name, error):
    def torn():
        yield from frames(5)
        raise error

    with pytest.raises(error):
        write(tmp_path / name, torn())
    assert left(tmp_path) == []


@pytest.mark.parametrize("name", KINDS)
def test_an_interruption_leaves_what_was_there(tmp_path, name):
    write(tmp_path / name, frames(2))
    before = left(tmp_path)

    def torn():
        yield from frames(5)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / name, torn())
    assert left(tmp_path) == before
    assert len(list(open_clip(tmp_path / name).frames())) == 2


@pytest.mark.parametrize("name", KINDS)
def test_frames_of_another_size_are_an_error(tmp_path, name):
    with pytest.raises(UsageError, match="Expected frames"):
        write(tmp_path / name, [next(frames()), np.zeros((3, 3, 3), np.uint8)])
    assert left(tmp_path) == []


@needs_ffmpeg
def test_a_failing_ffmpeg_is_one_error(tmp_path, monkeypatch):
    monkeypatch.setattr("zerolabel.outputs.video.encoder", lambda: ("-c:v", "none-such"))
    with pytest.raises(StoreError, match=r"could not write .*a\.mp4.*none-such"):
        write(tmp_path / "a.mp4", frames(400, (240, 320)), size=(240, 320))
    assert left(tmp_path) == []


def test_other_names_are_refused(tmp_path):
    with pytest.raises(UsageError, match=r"\.mp4, \.gif"):
        open_video(tmp_path / "a.mov", size=(4, 4), fps=NTSC)


def test_a_gif_is_not_held_in_memory(tmp_path):
    size = (60, 80)

    def peak(count):
        tracemalloc.start()
        write(tmp_path / "a.gif", frames(count, size), size=size)
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    peak(5)
    assert peak(120) < peak(20) + 20 * 60 * 80  # twenty frames of one byte a pixel
