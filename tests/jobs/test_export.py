"""The masks of a run, exported: found, checked, streamed, and there as a whole or not at all."""

import json
import shutil

import numpy as np
import pytest
from exported import categories, noise, objects, ring, same, write_exportable
from PIL import Image
from reference.exports import read_cvat, read_label_studio, read_labelme, read_labels
from scored_runs import PREDICTED, write_run
from speaking import write_colours

import zerolabel
from zerolabel.data.folder import find_images
from zerolabel.errors import DataError, StoreError, UsageError
from zerolabel.jobs.export import FORMATS, export

pytestmark = pytest.mark.usefixtures("small_worlds")
MASKS = {"a.jpg": ring(), "deep/b.c.png": noise(1, 4), "deep/ü.jpg": noise(2, 4)}


@pytest.fixture
def run(tmp_path):
    return write_exportable(tmp_path, MASKS, categories())


def content(folder):
    """Bytes of every file but the one that says where it is from."""
    files = {p.relative_to(folder).as_posix(): p for p in folder.rglob("*") if p.is_file()}
    return {name: path.read_bytes() for name, path in files.items() if name != "run.json"}


def names(folder):
    return [
        image["file_name"] for image in json.loads((folder / "stuff.json").read_text())["images"]
    ]


@pytest.mark.parametrize("way", FORMATS)
def test_every_format(run, tmp_path, way):
    before = content(run)
    seen = []
    found = export(run, tmp_path / "out", format=way, progress=lambda *step: seen.append(step))
    assert (found.path, found.format, found.images, found.notes) == (tmp_path / "out", way, 3, ())
    assert found.annotations == sum(
        len(objects(m, categories(), parts=False)) for m in MASKS.values()
    )
    assert [name for name, _, _ in read_labels(found.path).values()] == [
        category.name for category in categories()
    ]
    assert seen[-1] == ("export", 3, 3)
    assert content(run) == before
    made = json.loads((found.path / "run.json").read_text())
    assert made["job"]["format"] == way
    assert [sample.id for sample in find_images(tmp_path)] == [f"photos/{name}" for name in MASKS]


def test_parts_and_minimum(run, tmp_path):
    whole = export(run, tmp_path / "whole", format="cvat")
    parts = export(run, tmp_path / "parts", format="cvat", parts=True)
    large = export(run, tmp_path / "large", format="cvat", parts=True, minimum=4)
    assert whole.annotations < large.annotations < parts.annotations
    [_, there] = read_cvat(parts.path / "annotations.zip")["a"]
    assert same(there, objects(ring(), categories(), parts=True))
    [_, there] = read_cvat(large.path / "annotations.zip")["a"]
    assert min(len(pixels) for _, pixels in there) == 4


def test_labelme_finds_every_photo(run, tmp_path):
    out = tmp_path / "some" / "where" / "out"
    export(run, out, format="labelme")
    for name in MASKS:
        file = (out / "annotations" / name).with_suffix(".json")
        size, way, _ = read_labelme(file)
        assert (file.parent / way).resolve() == (tmp_path / "photos" / name).resolve()
        with Image.open(file.parent / way) as photo:
            assert photo.size == size[::-1]


def test_photos_that_moved(run, tmp_path):
    write_listing(run, MASKS)
    (tmp_path / "photos").rename(tmp_path / "moved")
    for way in ("coco", "cvat", "label-studio", "png"):  # names are enough
        export(run, tmp_path / way, format=way)
    assert names(tmp_path / "coco") == list(MASKS)
    with pytest.raises(DataError, match=r"which is not there any more. Give --data"):
        export(run, tmp_path / "labelme", format="labelme")
    assert not (tmp_path / "labelme").exists()
    export(run, tmp_path / "labelme", format="labelme", data=tmp_path / "moved")
    _, way, _ = read_labelme(tmp_path / "labelme" / "annotations" / "a.json")
    assert way == "../../moved/a.jpg"
    (tmp_path / "moved" / "a.jpg").unlink()
    export(run, tmp_path / "again", format="coco", data=tmp_path / "moved")
    with pytest.raises(DataError, match=r"The photo .*a.jpg is not there. Give --data"):
        export(run, tmp_path / "gone", format="labelme", data=tmp_path / "moved")


def write_listing(run, ids):
    (run / "cache").mkdir()
    (run / "cache" / "data.json").write_text(json.dumps(dict.fromkeys(ids, "x")))


def test_names_come_from_the_photos_where_the_list_is_gone(run, tmp_path):
    export(run, tmp_path / "one", format="coco")
    assert names(tmp_path / "one") == list(MASKS)
    shutil.rmtree(tmp_path / "photos")
    export(run, tmp_path / "two", format="cvat")  # which needs no suffix
    with pytest.raises(DataError, match="Give --data"):
        export(run, tmp_path / "three", format="coco")


def test_images_whose_masks_would_clash(tmp_path):
    masks = {"a.jpg": ring(), "a.png": noise(1, 4)}
    run = write_exportable(
        tmp_path, {"a.jpg.jpg": masks["a.jpg"], "a.png.jpg": masks["a.png"]}, categories()
    )
    write_listing(run, masks)  # masks are called a.jpg.png and a.png.png
    shutil.rmtree(tmp_path / "photos")
    export(run, tmp_path / "coco", format="coco")
    assert names(tmp_path / "coco") == ["a.jpg", "a.png"]
    with pytest.raises(DataError, match=r"a.jpg has the name of another photo"):
        export(run, tmp_path / "cvat", format="cvat")
    assert not (tmp_path / "cvat").exists()
    _, tasks = read_label_studio(
        export(run, tmp_path / "studio", format="label-studio", prefix="s3://bucket/").path
    )
    assert [address for address, _, _ in tasks] == ["s3://bucket/a.jpg", "s3://bucket/a.png"]
    assert same(tasks[1][2], objects(masks["a.png"], categories(), parts=False))


def test_an_image_without_mask_is_noted(run, tmp_path):
    write_listing(run, [*MASKS, "broken.jpg"])
    found = export(run, tmp_path / "out", format="coco")
    assert found.images == 3
    assert found.notes == ("1 image of the run has no mask and is left out",)


def test_masks_of_no_photo(run, tmp_path):
    shutil.copy(run / "masks" / "a.png", run / "masks" / "z.png")
    with pytest.raises(DataError, match=r"belongs to the masks z.png. Delete"):
        export(run, tmp_path / "out", format="coco")


def test_masks_made_elsewhere(tmp_path):
    run = write_run(tmp_path / "run", PREDICTED)
    found = export(run, tmp_path / "png", format="png")
    assert found.images == 2
    with Image.open(tmp_path / "png" / "masks" / "deep" / "b.png") as mask:
        np.testing.assert_array_equal(np.asarray(mask), PREDICTED["deep/b"])
    with pytest.raises(UsageError, match="does not say where its photos are. Give --data"):
        export(run, tmp_path / "coco", format="coco")
    for name in PREDICTED:
        path = tmp_path / "photos" / f"{name}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 3)).save(path)
    export(run, tmp_path / "coco", format="coco", data=tmp_path / "photos")
    assert names(tmp_path / "coco") == ["a.jpg", "deep/b.jpg"]


def test_photos_of_another_size(run, tmp_path):
    Image.new("RGB", (9, 9)).save(tmp_path / "photos" / "a.jpg")
    for way in ("coco", "labelme", "cvat", "label-studio"):
        with pytest.raises(DataError, match=r"a.jpg has 9 x 9 pixels and its mask 9 x 12"):
            export(run, tmp_path / way, format=way)
        assert not (tmp_path / way).exists()
    export(run, tmp_path / "png", format="png")
    turned = Image.new("RGB", (9, 12))  # as the file holds it; EXIF may turn it
    turned.save(tmp_path / "photos" / "a.jpg")
    export(run, tmp_path / "turned", format="labelme")
    (tmp_path / "photos" / "a.jpg").write_bytes(b"no photo")  # nor anything that could be measured
    export(run, tmp_path / "unknown", format="labelme")


def test_masks_of_a_geometry(tmp_path):
    run = write_exportable(tmp_path, MASKS, categories(), geometry="stego-320")
    for way in ("coco", "labelme", "cvat", "label-studio"):
        with pytest.raises(UsageError, match=r"geometry stego-320.*--format png"):
            export(run, tmp_path / way, format=way)
    assert export(run, tmp_path / "png", format="png").images == 3


def test_what_is_no_run(tmp_path):
    run = write_exportable(tmp_path, MASKS, categories())
    with pytest.raises(StoreError, match="is no finished run"):
        export(tmp_path / "photos", tmp_path / "out", format="png")
    (run / "model.json").write_text("{}")
    (run / "categories.json").rename(run / "kept.json")
    with pytest.raises(StoreError, match="holds a model and no masks"):
        export(run, tmp_path / "out", format="png")
    (run / "kept.json").rename(run / "categories.json")
    shutil.rmtree(run / "masks")
    with pytest.raises(DataError, match="holds no masks"):
        export(run, tmp_path / "out", format="png")
    assert not (tmp_path / "out").exists()


def test_wrong_options(run, tmp_path):
    for asked, words in (
        ({"format": "cocco"}, "Did you mean 'coco'"),
        ({"format": "png", "parts": True}, "Leave --parts out, or choose --format coco, labelme"),
        ({"format": "coco", "minimum": 0}, "--minimum is a number of pixels from 1"),
        ({"format": "coco", "prefix": "x"}, "--prefix goes with --format label-studio"),
    ):
        with pytest.raises(UsageError, match=words):
            export(run, tmp_path / "out", **asked)


def test_colours_that_are_none(run, tmp_path):
    listed = json.loads((run / "categories.json").read_text("utf-8"))
    for colour in ([1, 2], [1, 2, 300], [1, 2, "x"]):
        listed["categories"][1]["colour"] = colour
        (run / "categories.json").write_text(json.dumps(listed))
        with pytest.raises(StoreError, match="category 1 has the colour"):
            export(run, tmp_path / "out", format="coco")


def test_a_level_and_a_folder_of_levels(run, tmp_path):
    levels = tmp_path / "levels"
    shutil.copytree(run, levels / "k4")
    said = {"zerolabel": "1", "job": {"command": "granularity"}, "levels": [{"folder": "k4"}]}
    (levels / "run.json").write_text(json.dumps(said))
    with pytest.raises(StoreError, match=r"Name .*k4"):
        export(levels, tmp_path / "out", format="png")
    assert export(levels / "k4", tmp_path / "out", format="png").images == 3


def test_a_run_from_beginning_to_end(tmp_path):
    write_colours(tmp_path / "data", images=3)  # a data set: the photos are in a folder of it
    zerolabel.segment(
        tmp_path / "data", tmp_path / "run", method="kmeans", k=3, size=64, overlays=False
    )
    zerolabel.name(tmp_path / "run", csv=sheet(tmp_path, 'sky, "blue"', "b", "c"))
    found = export(tmp_path / "run", tmp_path / "out", format="labelme")
    files = sorted((found.path / "annotations").rglob("*.json"))
    assert found.images == len(files) == 3
    size, way, there = read_labelme(files[0])
    with Image.open(files[0].parent / way) as photo:
        assert photo.size == size[::-1]
    assert {name for name, _ in there} <= {'sky, "blue"', "b", "c"}
    assert sum(len(pixels) for _, pixels in there) == size[0] * size[1]


def sheet(folder, *typed):
    path = folder / "typed.csv"
    rows = [f'{i},"{name.replace(chr(34), 2 * chr(34))}"' for i, name in enumerate(typed)]
    path.write_text("\n".join(["id,name", *rows]), encoding="utf-8")
    return path
