"""The attention viewer on planted attention, so that it is known what every picture must show."""

import json
import shutil
from fractions import Fraction

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from planted import tiny_vit

from zerolabel import backbones
from zerolabel.backbones.vit import VitBackbone
from zerolabel.data.folder import find_images, read_image
from zerolabel.data.video import open_clip
from zerolabel.errors import DataError, ImageError, StoreError, UsageError
from zerolabel.jobs.attention import attention
from zerolabel.jobs.looking.attend import Watcher
from zerolabel.jobs.looking.options import Options
from zerolabel.networks.seed_logits import seed_logits
from zerolabel.ops.maps import to_pixels
from zerolabel.outputs.heat import LINE, shades
from zerolabel.outputs.video import open_video
from zerolabel.types import Features

SIZE = (48, 64)
needs_ffmpeg = pytest.mark.skipif(
    not (shutil.which("ffmpeg") and shutil.which("ffprobe")), reason="ffmpeg is not on the PATH"
)


class Planted(VitBackbone):
    """Head 0 attends to what is bright, head 1 to what is dark; tokens are colours."""

    def __init__(self):
        tiny = tiny_vit()
        super().__init__("planted", tiny.net)
        self.calls = []

    def encode(self, images, *, want):
        self.calls.append(tuple(images.shape))
        cells = F.avg_pool2d(images.float() / 255, self.stride)  # (B, 3, h, w)
        grey = cells.mean(1)
        heads = torch.stack([grey, 1 - grey], 1) / grey[0].numel()
        tokens = cells.permute(0, 2, 3, 1) if "tokens" in want else None
        return Features(tokens=tokens, attention=heads)


@pytest.fixture
def planted(monkeypatch):
    backbone = Planted()
    monkeypatch.setattr(backbones, "load", lambda *a, **k: backbone)
    return backbone


def photo(row=16, column=24, value=255, size=SIZE):
    """Black but for a square of 16x16 pixels."""
    image = np.zeros((*size, 3), np.uint8)
    image[row : row + 16, column : column + 16] = value
    return image


def bright(row=16, column=24, size=SIZE):
    return photo(row, column, 1, size)[..., 0] > 0


def save(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)
    return path


def show(source, out, **asked):
    return attention(source, out, options=Options(**({"size": 48} | asked)))


def outputs(out):
    """All files but those that a job always leaves."""
    found = {p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file()}
    return sorted(found - {"run.json", ".lock"})


def test_every_picture_of_one_image(tmp_path, planted):
    image = photo()
    source = save(tmp_path / "cat.png", image)
    shows = ("overlay", "heat", "contour", "mask", "side-by-side", "strip", "pca")
    done = show(source, tmp_path / "out", show=shows, heads="0")
    names = [f"cat-{name}-head0.png" for name in shows[:5]] + ["cat-pca.png", "cat-strip.png"]
    assert outputs(tmp_path / "out") == sorted(done.files) == sorted(names)
    assert (done.images, done.failures) == (1, {})

    mask = np.asarray(Image.open(tmp_path / "out" / "cat-mask-head0.png"))
    assert mask.shape == SIZE
    assert set(np.unique(mask)) == {0, 255}
    assert not mask[~bright()].any()
    assert (mask[bright()] > 0).mean() == 0.75  # three of four equal patches hold 60 %
    heat = read_image(tmp_path / "out" / "cat-heat-head0.png")
    assert (heat[bright()] == shades()[-1]).all()
    assert (heat[~bright()] == shades()[0]).all()
    line = (read_image(tmp_path / "out" / "cat-contour-head0.png") == LINE).all(-1)
    assert line.any()
    assert not line[~bright()].any()
    pca = read_image(tmp_path / "out" / "cat-pca.png")
    assert not pca[~bright()].any()


@pytest.mark.parametrize("heads", ["mean", "max", "union", "all", "1"])
def test_choices_of_heads(tmp_path, planted, heads):
    source = save(tmp_path / "cat.png", photo())
    done = show(source, tmp_path / "out", heads=heads, show=("mask",), mass=1.0)
    expected = {"all": ["head0", "head1"], "1": ["head1"]}.get(heads, [heads])
    assert sorted(done.files) == [f"cat-mask-{label}.png" for label in expected]
    masks = {f: np.asarray(Image.open(tmp_path / "out" / f)) > 0 for f in done.files}
    if heads == "1":
        assert (masks["cat-mask-head1.png"] == ~bright()).all()
    elif heads == "all":
        assert (masks["cat-mask-head0.png"] == bright()).all()
    else:  # all mass of both heads is everywhere
        assert masks[f"cat-mask-{heads}.png"].all()


def test_the_best_head_is_found_by_masks(tmp_path, planted):
    for name in ("a", "b", "c"):
        save(tmp_path / "photos" / f"{name}.png", photo())
    save(tmp_path / "masks" / "a.png", bright().astype(np.uint8) * 7)
    save(tmp_path / "masks" / "b.png", np.where(bright(), 0, 1).astype(np.uint8))
    save(tmp_path / "masks" / "c.png", np.zeros(SIZE, np.uint8))
    done = show(
        tmp_path / "photos", tmp_path / "out", heads="best", truth=tmp_path / "masks", mass=1.0
    )
    assert done.files == ("a-overlay-best.png", "b-overlay-best.png")
    assert "no object" in done.failures["c.png"]
    run = json.loads((tmp_path / "out" / "run.json").read_text())
    assert run["best"] == {"a.png": [0, 1.0], "b.png": [1, 1.0]}


def test_a_missing_mask_is_a_failure_of_its_image(tmp_path, planted):
    save(tmp_path / "photos" / "a.png", photo())
    (tmp_path / "masks").mkdir()
    with pytest.raises(DataError, match="is not there"):
        show(tmp_path / "photos", tmp_path / "out", heads="best", truth=tmp_path / "masks")
    with pytest.raises(DataError, match="no ground truth"):
        show(tmp_path / "photos", tmp_path / "other", heads="best")


def test_a_folder_goes_on_without_what_cannot_be_read(tmp_path, planted):
    save(tmp_path / "in" / "a" / "x.png", photo())
    save(tmp_path / "in" / "a" / "x.jpg", photo())
    save(tmp_path / "in" / "y.png", photo(0, 0, size=(70, 50)))
    (tmp_path / "in" / "bad.png").write_bytes(b"nothing")
    done = show(tmp_path / "in", tmp_path / "out")
    assert done.images == 3
    assert list(done.failures) == ["bad.png"]
    assert outputs(tmp_path / "out") == [
        "a/x.jpg-overlay-mean.png", "a/x.png-overlay-mean.png", "failures.json",
        "y-overlay-mean.png",
    ]  # fmt: skip
    assert read_image(tmp_path / "out" / "y-overlay-mean.png").shape == (70, 50, 3)
    (tmp_path / "in" / "bad.png").unlink()
    show(tmp_path / "in", tmp_path / "out")
    assert not (tmp_path / "out" / "failures.json").exists()


def test_no_readable_image_is_an_error(tmp_path, planted):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "bad.png").write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"bad\.png.*failures\.json"):
        show(tmp_path / "in", tmp_path / "out", show=("pca",), limits="clip")
    assert "bad.png" in (tmp_path / "out" / "failures.json").read_text()


@pytest.mark.parametrize(
    ("image", "size", "whole", "cut"),
    [
        ((300, 400), 480, (480, 640), (480, 640)),
        ((333, 500), 480, (480, 721), (480, 720)),
        ((500, 333), 50, (72, 48), (72, 48)),
        ((20, 30), 64, (64, 96), (64, 96)),
        ((333, 500), (100, 60), (96, 56), (96, 56)),
    ],
)
def test_the_size_that_is_looked_at(image, size, whole, cut):
    watcher = Watcher(tiny_vit(), size=size, mode="attention", heads="mean", mass=0.6)
    assert watcher.working_size(*image) == (whole, cut)


def test_what_cannot_be_looked_at():
    made = {"size": 48, "mode": "attention", "heads": "mean", "mass": 0.6}
    wrong = [
        ({"size": 7}, "at least that"),
        ({"size": (48, 4)}, "at least that"),
        ({"heads": "2"}, "heads 0 to 1"),
        ({"heads": "median"}, "Did you mean"),
        ({"mode": "rollout"}, "seed-logits"),
        ({"mode": "seed-logits", "heads": "all"}, "Leave --heads out"),
    ]
    for change, words in wrong:
        with pytest.raises(UsageError, match=words):
            Watcher(tiny_vit(), **(made | change))
    with pytest.raises(UsageError, match=r"filterbank.*dino-vits8"):
        Watcher(backbones.load("filterbank", device="cpu"), **made)
    with pytest.raises(ImageError, match="smaller --size"):
        Watcher(tiny_vit(), **made).working_size(2, 100_000)


def test_neighbours_of_one_size_share_a_forward_and_see_the_same():
    rng = np.random.default_rng(0)
    sizes = [(50, 70), (50, 70), (64, 48), (50, 70)]
    images = [rng.integers(0, 256, (*size, 3), np.uint8) for size in sizes]
    backbone = Planted()
    watcher = Watcher(backbone, size=48, mode="attention", heads="all", mass=0.6)
    watcher.look(images, tokens=False, every_head=False)
    assert [call[0] for call in backbone.calls] == [2, 1, 1]
    real = Watcher(tiny_vit(), size=48, mode="attention", heads="all", mass=0.6)
    together = real.look(images, tokens=True, every_head=False)
    for image, seen in zip(images, together, strict=True):
        alone = real.look([image], tokens=True, every_head=False)[0]
        assert torch.allclose(alone.maps, seen.maps, atol=1e-6)
        assert torch.allclose(alone.tokens, seen.tokens, atol=1e-4)
        assert alone.cover == seen.cover


def test_the_long_side_is_cut_and_not_stretched(tmp_path, planted):
    image = photo(16, 40, size=(48, 67))  # 8 patches and 3 pixels
    source = save(tmp_path / "cat.png", image)
    show(source, tmp_path / "out", show=("mask",), heads="0", mass=1.0)
    mask = np.asarray(Image.open(tmp_path / "out" / "cat-mask-head0.png")) > 0
    assert (mask == bright(16, 40, (48, 67))).all()


def test_seed_logits_are_drawn(tmp_path, monkeypatch):
    backbone = tiny_vit()
    monkeypatch.setattr(backbones, "load", lambda *a, **k: backbone)
    source = save(tmp_path / "cat.png", photo())
    done = show(source, tmp_path / "out", mode="seed-logits", show=("heat", "mask", "pca"))
    assert done.files == ("cat-heat-seed-logits.png", "cat-mask-seed-logits.png", "cat-pca.png")
    images = torch.from_numpy(photo()).permute(2, 0, 1)[None]
    logits = seed_logits(backbone.net, backbone.prepare(images))
    span = logits.max() - logits.min()
    level = to_pixels((logits - logits.min()) / span, SIZE)[0].numpy() * 255 + 0.5
    drawn = read_image(tmp_path / "out" / "cat-heat-seed-logits.png")
    off = np.abs(drawn.astype(int) - shades()[level.astype(int)])
    assert off.max() <= 8  # a neighbouring shade


def frames(folder, values):
    for i, value in enumerate(values):
        save(folder / f"frame-{i}.png", photo(value=value))
    return folder


def test_one_range_over_a_clip(tmp_path, planted):
    source = frames(tmp_path / "clip", [100, 200, 100, 250, 100, 0, 100])
    asked = {"frames": True, "show": ("heat",), "heads": "0"}
    show(source, tmp_path / "clips", **asked)
    shared = list(open_clip(tmp_path / "clips" / "clip-heat-head0").frames())
    assert len(shared) == 7
    levels = shades()[np.rint(np.array([100, 200, 100, 250, 100, 0, 100]) / 250 * 255).astype(int)]
    for image, colour in zip(shared, levels, strict=True):
        assert np.abs(image[20, 30].astype(int) - colour).max() <= 8
    show(source, tmp_path / "single", **asked, limits="frame")
    for image in list(open_clip(tmp_path / "single" / "clip-heat-head0").frames())[:5]:
        assert (image[20, 30] == shades()[-1]).all()  # each by its own brightest
    show(source, tmp_path / "fixed", **asked, limits=(0.0, 1.0))
    for image in open_clip(tmp_path / "fixed" / "clip-heat-head0").frames():
        assert image[20, 30].sum() < shades()[10].sum()
    assert json.loads((tmp_path / "clips" / "run.json").read_text())["limits"]["head0"][0] == 0


def test_a_clip_is_looked_at_once_and_leaves_no_cache(tmp_path, planted):
    source = frames(tmp_path / "clip", range(100, 110))
    show(source, tmp_path / "out", frames=True, show=("heat", "overlay"))
    assert [call[0] for call in planted.calls] == [4, 4, 2]
    folders = sorted(path.name for path in (tmp_path / "out").iterdir() if path.is_dir())
    assert folders == ["clip-heat-mean", "clip-overlay-mean"]


def test_an_interrupted_clip_goes_on(tmp_path, planted, monkeypatch):
    source = frames(tmp_path / "clip", range(100, 110))
    seen = []

    def stop(work, done, total):
        seen.append((work, done, total))
        if work == "draw" and done == 8:
            raise KeyboardInterrupt

    options = Options(size=48, frames=True)
    with pytest.raises(KeyboardInterrupt):
        attention(source, tmp_path / "out", options=options, progress=stop)
    assert not (tmp_path / "out" / "clip-overlay-mean").exists()
    assert not list((tmp_path / "out").rglob("*.png"))
    planted.calls.clear()
    attention(source, tmp_path / "out", options=options)
    assert planted.calls == []  # all of it was still there
    assert open_clip(tmp_path / "out" / "clip-overlay-mean").count == 10
    assert seen[0] == ("look", 0, 10)
    assert ("look", 10, 10) in seen


def test_a_damaged_clip_leaves_nothing(tmp_path, planted):
    source = frames(tmp_path / "clip", range(100, 110))
    (source / "frame-9.png").write_bytes(b"nothing")
    for limits in ("clip", "frame"):
        with pytest.raises(DataError, match=r"frame-9\.png"):
            show(source, tmp_path / "out", frames=True, limits=limits)
        assert outputs(tmp_path / "out") == []


@needs_ffmpeg
def test_video_in_and_out(tmp_path, planted):
    rate = Fraction(30000, 1001)
    with open_video(tmp_path / "film.mp4", size=SIZE, fps=rate) as put:
        for i in range(10):
            put(photo(16, 8 + 3 * i))
    done = show(tmp_path / "film.mp4", tmp_path / "out", show=("overlay", "mask"), heads="0")
    assert done.files == ("film-overlay-head0.mp4", "film-mask-head0.mp4")
    assert outputs(tmp_path / "out") == sorted(done.files)
    for name in done.files:
        clip = open_clip(tmp_path / "out" / name)
        assert (clip.size, clip.fps, clip.count) == (SIZE, rate, 10)
    masks = list(open_clip(tmp_path / "out" / "film-mask-head0.mp4").frames())
    for i in (0, 9):
        column = np.flatnonzero((masks[i][..., 0] > 128).any(0)).mean()
        assert abs(column - (8 + 3 * i + 8)) < 8  # it follows the square, to a patch


def test_a_gif_stays_a_gif_unless_asked_otherwise(tmp_path, planted, monkeypatch):
    monkeypatch.setenv("PATH", "")  # no ffmpeg is needed
    images = [Image.fromarray(photo(16, 3 * i)) for i in range(4)]
    images[0].save(tmp_path / "a.gif", save_all=True, append_images=images[1:], duration=40)
    show(tmp_path / "a.gif", tmp_path / "out", heads="0")
    clip = open_clip(tmp_path / "out" / "a-overlay-head0.gif")
    assert (clip.size, clip.fps, clip.count) == (SIZE, 25, 4)
    show(tmp_path / "a.gif", tmp_path / "frames", format="frames", fps=Fraction(5))
    assert open_clip(tmp_path / "frames" / "a-overlay-mean").count == 4
    with pytest.raises(UsageError, match="Install ffmpeg"):
        show(tmp_path / "a.gif", tmp_path / "none", format="mp4")
    assert not (tmp_path / "none").exists()


def test_components_mean_the_same_in_all_images(tmp_path, monkeypatch):
    class Bright(Planted):
        def encode(self, images, *, want):
            found = super().encode(images, want=want)
            return Features(
                tokens=found.tokens, attention=found.attention[:, :1].repeat(1, 2, 1, 1)
            )

    backbone = Bright()
    monkeypatch.setattr(backbones, "load", lambda *a, **k: backbone)
    for i in range(6):
        image = photo(16, 8)
        image[16:32, 8:16] = (200, 180, 60)
        image[16:32, 40:48] = (255, 0, 0) if i % 2 else (0, 90, 255)
        save(tmp_path / "in" / f"{i}.png", image)
    show(tmp_path / "in", tmp_path / "out", show=("pca",))
    drawn = [read_image(tmp_path / "out" / f"{i}-pca.png") for i in range(6)]
    for image in drawn:
        assert (image[20, 10] == drawn[0][20, 10]).all()
        assert not image[:16].any()
    assert (drawn[0][20, 10] != drawn[0][20, 20]).any()


def test_pictures_are_not_taken_for_data(tmp_path, planted):
    save(tmp_path / "in" / "a.png", photo())
    show(tmp_path / "in", tmp_path / "in" / "out")
    assert [sample.id for sample in find_images(tmp_path / "in")] == ["a.png"]
    assert show(tmp_path / "in", tmp_path / "in" / "out").images == 1
    with pytest.raises(UsageError, match="folder of the images itself"):
        show(tmp_path / "in", tmp_path / "in")


def test_a_run_of_another_kind_is_left_alone(tmp_path, planted):
    source = save(tmp_path / "in" / "a.png", photo())
    (tmp_path / "out").mkdir()
    text = '{"zerolabel": "0.1.0", "job": {"method": "datus"}}'
    (tmp_path / "out" / "run.json").write_text(text)
    with pytest.raises(StoreError, match="another kind"):
        show(source, tmp_path / "out")
    assert (tmp_path / "out" / "run.json").read_text() == text


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"show": ("overlays",)}, "Did you mean 'overlay'"),
        ({"show": ()}, "Nothing to show"),
        ({"upsample": "cubic"}, "nearest"),
        ({"format": "avi"}, "mp4"),
        ({"format": "gif"}, "is for clips"),
        ({"mass": 60}, "between 0 and 1"),
        ({"limits": "both"}, "frame"),
        ({"limits": (1.0, 0.0)}, "LOW below HIGH"),
        ({"fps": Fraction(5)}, "add --frames"),
        ({"frames": True}, "Leave it out"),
        ({"split": "val"}, "--split val"),
    ],
)
def test_what_makes_no_sense_is_refused_before_any_work(tmp_path, planted, asked, words):
    source = save(tmp_path / "cat.png", photo())
    with pytest.raises(UsageError, match=words):
        show(source, tmp_path / "out", **asked)
    assert not (tmp_path / "out").exists()


def test_truth_must_fit(tmp_path, planted):
    frames(tmp_path / "in", [1, 2])
    mask = save(tmp_path / "mask.png", np.ones(SIZE, np.uint8))
    wrong = [
        ({"truth": mask}, "Add --heads best"),
        ({"truth": mask, "heads": "best"}, "one mask for 2 images"),
        ({"truth": mask, "heads": "best", "frames": True}, "neither --split nor --truth"),
        ({"heads": "best", "frames": True}, "compares with masks"),
    ]
    for asked, words in wrong:
        with pytest.raises(UsageError, match=words):
            show(tmp_path / "in", tmp_path / "out", **asked)
