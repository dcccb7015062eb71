"""Clips: order of frames, rates, sizes, rotation, and one clear error for what is damaged."""

import os
import shutil
import subprocess
from fractions import Fraction

import numpy as np
import pytest
from PIL import Image

from zerolabel.data import ffmpeg
from zerolabel.data.video import is_clip, natural, open_clip
from zerolabel.errors import DataError, UsageError

needs_ffmpeg = pytest.mark.skipif(
    not (shutil.which("ffmpeg") and shutil.which("ffprobe")), reason="ffmpeg is not on the PATH"
)


def frame(i, size=(24, 32)):
    """Grey, brighter with time, with a bright corner at the top left."""
    image = np.full((*size, 3), 20 + 8 * i, np.uint8)
    image[: size[0] // 3, : size[1] // 3] = 250
    return image


def make(path, *arguments, frames=10, size=(24, 32), rate="25"):
    """Let ffmpeg write a video of `frame`s, without the writer that is tested elsewhere."""
    data = b"".join(frame(i, size).tobytes() for i in range(frames))
    given = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{size[1]}x{size[0]}", "-r", rate]
    command = ["ffmpeg", "-v", "error", *given, "-i", "pipe:0", *arguments, "-y", str(path)]
    subprocess.run(command, input=data, check=True)
    return path


def turn(path, new, degrees):
    """Mark a video as held sideways, as telephones do."""
    command = ["ffmpeg", "-v", "error", "-i", str(path), "-c", "copy"]
    subprocess.run([*command, "-metadata:s:v", f"rotate={degrees}", str(new)], check=True)
    return new


@pytest.fixture
def folder(tmp_path):
    for i in (1, 2, 9, 10, 9999, 10000):
        Image.fromarray(frame(0) + np.uint8(i % 97)).save(tmp_path / f"frame-{i}.png")
    return tmp_path


def test_frames_of_a_folder_come_in_the_order_of_their_numbers(folder):
    clip = open_clip(folder)
    assert (clip.kind, clip.size, clip.fps, clip.count) == ("frames", (24, 32), 25, 6)
    seen = [int(image[-1, -1, 0]) - 20 for image in clip.frames()]
    assert seen == [i % 97 for i in (1, 2, 9, 10, 9999, 10000)]
    assert len(list(clip.frames())) == 6  # again from the start
    assert open_clip(folder, fps=Fraction(30000, 1001)).fps == Fraction(30000, 1001)


def test_natural_order():
    names = ["b/frame-10.png", "b/frame-9.png", "a2", "a10", "a1b", "10", "9"]
    assert sorted(names, key=natural) == [
        "9", "10", "a1b", "a2", "a10", "b/frame-9.png", "b/frame-10.png",
    ]  # fmt: skip


def test_frames_of_one_clip_have_one_size(folder):
    Image.fromarray(frame(0, (10, 10))).save(folder / "frame-5.png")
    with pytest.raises(DataError, match=r"frame-5\.png has 10x10 pixels, the first one 24x32"):
        list(open_clip(folder).frames())


def test_a_damaged_frame_is_named(folder):
    (folder / "frame-9.png").write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"frame-9\.png: not an image"):
        list(open_clip(folder).frames())


@pytest.mark.parametrize("suffix", ["gif", "webp", "png"])
def test_animations_need_no_ffmpeg(tmp_path, monkeypatch, suffix):
    monkeypatch.setenv("PATH", "")
    path = tmp_path / f"clip.{suffix}"
    images = [Image.fromarray(frame(i)) for i in range(5)]
    extra = {"lossless": True} if suffix == "webp" else {}
    images[0].save(path, save_all=True, append_images=images[1:], duration=40, **extra)
    assert is_clip(path)
    clip = open_clip(path)
    assert (clip.kind, clip.size, clip.fps, clip.count) == ("animation", (24, 32), 25, 5)
    found = list(clip.frames())
    assert len(found) == 5
    for i, image in enumerate(found):
        assert np.abs(image.astype(int) - frame(i)).max() <= 2  # of GIF's palette


def test_a_still_image_is_no_clip(tmp_path):
    Image.fromarray(frame(0)).save(tmp_path / "one.gif")
    (tmp_path / "broken.jpg").write_bytes(b"nothing")
    (tmp_path / "film.mp4").write_bytes(b"nothing")
    assert not is_clip(tmp_path / "one.gif")
    assert not is_clip(tmp_path / "broken.jpg")  # the reader of images says what is wrong
    assert is_clip(tmp_path / "film.mp4")


def test_a_cut_animation_is_damaged(tmp_path):
    path = tmp_path / "clip.gif"
    images = [Image.fromarray(np.random.default_rng(i).integers(0, 256, (24, 32, 3), np.uint8))
              for i in range(5)]  # fmt: skip
    images[0].save(path, save_all=True, append_images=images[1:])
    path.write_bytes(path.read_bytes()[:-900])
    with pytest.raises(DataError, match="damaged"):
        list(open_clip(path).frames())


def test_what_is_not_there_or_empty(tmp_path):
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "none").mkdir()
    for name, words in [("empty.mp4", "is empty"), ("no.mp4", "not exist"), ("none", "no image")]:
        with pytest.raises(DataError, match=words):
            open_clip(tmp_path / name)
    with pytest.raises(UsageError, match="positive"):
        open_clip(tmp_path / "none", fps=Fraction(0))


def test_without_ffmpeg_the_error_says_what_to_do(tmp_path, monkeypatch):
    (tmp_path / "film.mp4").write_bytes(b"something")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match="Install ffmpeg.*--frames.*GIF"):
        open_clip(tmp_path / "film.mp4")


@needs_ffmpeg
@pytest.mark.parametrize("rate", ["25", "30000/1001"])
def test_a_video_gives_its_frames(tmp_path, rate):
    path = make(tmp_path / "-odd name: 1.mkv", "-c:v", "ffv1", rate=rate)
    clip = open_clip(path)
    assert (clip.kind, clip.size, clip.fps) == ("video", (24, 32), Fraction(rate))
    assert abs(clip.count - 10) <= 1  # this container does not count them
    found = list(clip.frames())
    assert len(found) == 10
    for i, image in enumerate(found):
        assert np.abs(image.astype(int) - frame(i)).max() <= 4


@needs_ffmpeg
def test_a_video_held_sideways_comes_upright(tmp_path):
    flat = make(tmp_path / "flat.mp4", "-pix_fmt", "yuv420p", frames=3)
    clip = open_clip(turn(flat, tmp_path / "turned.mp4", 90))
    assert clip.size == (32, 24)
    image = next(iter(clip.frames()))
    corners = image[2, 2, 0], image[2, -3, 0], image[-3, 2, 0], image[-3, -3, 0]
    assert sorted(int(value) > 150 for value in corners) == [False, False, False, True]
    assert not corners[0] > 150  # where it was before


@needs_ffmpeg
def test_wide_pixels_become_square(tmp_path):
    path = make(tmp_path / "wide.mp4", "-vf", "setsar=3/2", "-pix_fmt", "yuv420p", frames=2)
    clip = open_clip(path)
    assert clip.size == (24, 48)
    assert next(iter(clip.frames())).shape == (24, 48, 3)


@needs_ffmpeg
def test_uneven_frames_keep_their_time(tmp_path):
    choose = ("-vf", "select=lt(n\\,20)+not(mod(n\\,2))", "-vsync", "vfr", "-pix_fmt", "yuv420p")
    path = make(tmp_path / "uneven.mp4", *choose, frames=28)  # 20 fast frames, 4 slow ones
    clip = open_clip(path)
    assert 20 < clip.fps < 25
    assert abs(len(list(clip.frames())) / clip.fps - Fraction(28, 25)) < Fraction(3, 25)


@needs_ffmpeg
@pytest.mark.parametrize("name", ["cut.mp4", "cut.mkv", "cut.avi", "noise.mp4", "headless.mp4"])
def test_a_damaged_video_is_one_clear_error(tmp_path, name):
    arguments = ("-movflags", "+faststart") if name in ("cut.mp4", "noise.mp4") else ()
    size, suffix = (120, 160), name[-3:]
    path = make(tmp_path / f"whole.{suffix}", *arguments, frames=25, size=size)
    data = path.read_bytes()
    if name == "noise.mp4":
        junk = np.random.default_rng(0).integers(0, 256, len(data) // 4, np.uint8).tobytes()
        data = data[: len(data) // 2] + junk + data[len(data) // 2 + len(junk) :]
    else:
        data = data[: len(data) * (7 if name.startswith("cut") else 3) // 10]
    (tmp_path / name).write_bytes(data)
    with pytest.raises(DataError, match=r"damaged after \d+ frames|cannot be read as a video") as e:
        list(open_clip(tmp_path / name).frames())
    assert name in str(e.value)
    assert "copy it again" in str(e.value)


@needs_ffmpeg
def test_other_files_are_no_videos(tmp_path):
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(DataError, match="cannot be read as a video: Invalid data"):
        open_clip(tmp_path / "text.mp4")
    command = ["ffmpeg", "-v", "error", "-f", "lavfi", "-i", "sine=duration=0.2"]
    subprocess.run([*command, str(tmp_path / "sound.wav")], check=True)
    with pytest.raises(DataError, match="no video stream: found audio"):
        open_clip(tmp_path / "sound.wav")


@needs_ffmpeg
def test_a_video_without_frames_is_an_error(tmp_path):
    whole = make(tmp_path / "whole.mp4", "-pix_fmt", "yuv420p")
    late = ["ffmpeg", "-v", "error", "-ss", "100", "-i", str(whole), "-c", "copy"]
    subprocess.run([*late, str(tmp_path / "none.mp4")], check=True)
    with pytest.raises(DataError, match="without frames|no video stream|cannot be read"):
        open_clip(tmp_path / "none.mp4")


@needs_ffmpeg
def test_a_playlist_opens_no_address(tmp_path):
    path = tmp_path / "list.m3u8"
    path.write_text("#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nhttp://127.0.0.1:9/a.ts\n")
    with pytest.raises(DataError, match="cannot be read as a video"):
        open_clip(path)


@needs_ffmpeg
def test_no_child_is_left_when_reading_ends_early(tmp_path):
    psutil = pytest.importorskip("psutil")
    path = make(tmp_path / "long.mp4", "-pix_fmt", "yuv420p", frames=25, size=(240, 320))
    me = psutil.Process(os.getpid())
    before = set(me.children())  # what other tests keep, such as multiprocessing's helpers
    reading = open_clip(path).frames()
    next(reading)
    assert set(me.children()) > before
    reading.close()
    assert set(me.children()) <= before


def test_words_of_ffmpeg_are_shortened():
    said = b"first\n[mov @ 0x55] moov atom not found.\n"
    assert ffmpeg.last_line(said) == "moov atom not found"
    assert ffmpeg.last_line(b"file:/a b/c.mp4: Invalid data\n") == "Invalid data"
    assert ffmpeg.last_line(b"") == ""
