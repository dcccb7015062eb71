import io
import json
import re

import numpy as np
import pytest
from PIL import Image

from zerolabel.data.synthetic import world
from zerolabel.errors import DataError
from zerolabel.jobs.compare import compare
from zerolabel.jobs.comparing.pictures import Gallery, figure, ranked
from zerolabel.jobs.scoring.labelled import open_labelled
from zerolabel.outputs.grid import NO_CLASS, SIDE, class_colours

NAMES = ("grass", "water", "sand")


def save(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(pixels, np.uint8)).save(path)


def write_run(run, masks, *, clusters, seed=0, method="kmeans"):
    for name, mask in masks.items():
        save(run / "masks" / name, mask)
    listed = [{"id": k, "name": f"category {k}"} for k in range(clusters)]
    (run / "categories.json").write_text(json.dumps({"categories": listed}))
    config = {"k": clusters, "seed": seed, "refine": "guided"}
    job = {"method": method, "backbone": "filterbank", "config": config, "data": "x"}
    (run / "run.json").write_text(json.dumps({"job": job}))
    return run


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    samples = world(3, images=6, per_image=3, size=(40, 60))
    for sample in samples:
        save(root / "images" / sample.id, sample.load())
        label = sample.load_label().copy()
        label[:3] = 255
        save(root / "masks" / sample.id, label)
    (root / "classes.txt").write_text("\n".join(NAMES))
    return root


@pytest.fixture
def runs(data, tmp_path):
    """Clusters 2, 0, 1 are classes 0, 1, 2; the more of an image is wrong, the later its name."""
    truth = {s.id: s.load_label() for s in open_labelled(data, None).samples}
    made = []
    for number, method in enumerate(("kmeans", "datus")):
        masks = {}
        for i, (name, label) in enumerate(sorted(truth.items())):
            mask = np.array([2, 0, 1])[np.minimum(label, 2)]
            mask[:, : 3 * i] = 3  # a cluster that no class is left for
            if number and i == 2:
                mask[:] = 3
            masks[name] = mask
        made.append(write_run(tmp_path / method, masks, clusters=4, method=method))
    return made


@pytest.fixture
def gallery(data, runs):
    table = compare(runs, data=[data]).table
    (column,) = table.columns
    return Gallery(column, table.pictured(column), open_labelled(data, None))


def test_missing_scores_are_computed_and_kept(data, runs):
    table = compare(runs, data=[data]).table
    (column,) = table.columns
    assert (column.dataset, column.images, column.classes) == (data.name, 6, NAMES)
    assert len(table.rows) == 2
    kept = json.loads((runs[0] / "evaluation-full.json").read_text())
    assert kept["miou"] == table.rows[0].cells[column].spread("miou").mean
    before = (runs[0] / "evaluation-full.json").stat().st_mtime_ns
    assert len(compare(runs, data=[data]).table.columns) == 1
    assert (runs[0] / "evaluation-full.json").stat().st_mtime_ns == before


def test_every_run_is_scored_in_every_way_that_one_is(data, tmp_path):
    label = {s.id: s.load_label() % 3 for s in open_labelled(data, None).samples}
    both = [write_run(tmp_path / name, label, clusters=3, seed=i) for i, name in enumerate("ab")]
    compare(both[:1], data=[data], protocol="picie-320")
    table = compare(both, data=[data]).table
    assert [c.protocol for c in table.columns] == ["picie-320"]
    assert table.rows[0].cells[table.columns[0]].seeds == [0, 1]
    both_ways = compare(both, data=[data], protocol="datus").table
    assert [c.protocol for c in both_ways.columns] == ["datus"]
    assert len(compare(both).table.columns) == 2


def test_a_run_on_other_images_has_a_note_and_all_such_are_an_error(data, runs, tmp_path):
    other = write_run(tmp_path / "other", {"x.png": np.zeros((4, 4))}, clusters=1)
    result = compare([*runs, other], data=[data])
    assert len(result.table.rows) == 2
    assert any("no score on" in note and "No mask in RUN" in note for note in result.notes)
    with pytest.raises(DataError, match="belongs to an image"):
        compare([other], data=[data])


def test_predictions_are_numbered_by_the_class_of_their_cluster(gallery):
    sample = gallery.samples[1]
    truth, (first, second) = gallery.maps(sample)
    label = sample.load_label()
    assert (truth[:3] == 4).all()
    assert (truth[3:] == label[3:]).all()
    assert (first[:, :3] == 3).all()
    assert (first[3:, 3:] == label[3:, 3:]).all()
    assert (second == first).all()


def test_an_image_is_scored_by_the_matching_of_the_whole_data_set(gallery):
    for i, sample in enumerate(gallery.samples):
        label = sample.load_label()[3:]
        right = label[:, 3 * i :]
        ious = [(right == c).sum() / (label == c).sum() for c in range(3) if (label == c).any()]
        expected = [np.mean(ious), 0.0 if i == 2 else np.mean(ious)]
        assert gallery.score(sample) == pytest.approx(expected)


def test_best_worst_and_most_different_images_come_first(gallery):
    shown = {e.title.partition(":")[0]: e.data["rows"] for e in ranked(gallery, title="t")}
    names = [sample.id for sample in gallery.samples]
    first = {title: [row["name"] for row in rows] for title, rows in shown.items()}
    assert first["Best images"][:2] == names[:2]
    assert set(first["Worst images"][:3]) == {names[2], names[4], names[5]}
    assert first["Largest differences"][0] == names[2]
    labels = [label for _, label in shown["Largest differences"][0]["views"]]
    assert labels[:2] == ["photo", "truth"]
    assert re.fullmatch(r"kmeans filterbank: \d+\.\d", labels[2])
    assert labels[3] == "datus filterbank: 0.0"


def test_the_figure_shows_even_or_drawn_images(gallery):
    def rows(picture):
        colours = (picture == NO_CLASS).all(axis=2).any(axis=1)
        return int(colours.sum())

    assert figure(gallery, 2).shape[1] > 4 * SIDE
    heights = [figure(gallery, n).shape[0] for n in (1, 2, 6, 99)]
    assert heights[2] == heights[3]  # there are only six
    assert heights[1] - heights[0] == (heights[2] - heights[1]) / 4
    assert rows(figure(gallery, 6)) > rows(figure(gallery, 1))
    assert (figure(gallery, 3, seed=5) == figure(gallery, 3, seed=5)).all()
    drawn = {figure(gallery, 3, seed=seed).tobytes() for seed in range(6)}
    assert len(drawn) > 1


def test_pages_and_figures_are_written(data, runs, tmp_path):
    out = tmp_path / "out"
    result = compare(runs, out, data=[data], grid=2)
    assert out / "grid.png" in result.files
    html = (out / "index.html").read_text()
    for title in ("Best images", "Worst images", "Largest differences", "Confusions"):
        assert title in html
    with Image.open(out / "grid.png") as picture:
        colours = {rgb for _, rgb in picture.getcolors(1 << 16)}
    assert {tuple(rgb) for rgb in class_colours(NAMES).tolist()} <= colours
    two = compare(runs, out, data=[data], grid=2, protocol="datus")
    assert two.files[-1].name == "grid.png"
    assert len([f for f in compare(runs, out, data=[data], grid=2).files if "grid-" in f.name]) == 2


@pytest.mark.parametrize("protocol", ["picie-320", "transfgu", "maskcontrast"])
def test_photo_truth_and_prediction_show_the_same_pixels(data, runs, protocol):
    table = compare(runs[:1], data=[data], protocol=protocol).table
    (column,) = table.columns
    gallery = Gallery(column, table.pictured(column), open_labelled(data, None))
    pictures = gallery.panel(gallery.samples[3])
    assert len({picture.shape for picture in pictures}) == 1
    size = (40, 60) if protocol == "maskcontrast" else (320, 320)
    assert gallery.maps(gallery.samples[3])[0].shape == size


def test_a_mask_that_has_changed_since_is_an_error(data, runs, tmp_path):
    table = compare(runs[:1], data=[data]).table
    (column,) = table.columns
    gallery = Gallery(column, table.pictured(column), open_labelled(data, None))
    buffer = io.BytesIO()
    Image.new("L", (3, 3)).save(buffer, "PNG")
    (tmp_path / "small.png").write_bytes(buffer.getvalue())
    gallery.masks[0][gallery.samples[0].id] = tmp_path / "small.png"
    with pytest.raises(DataError, match="another size than when it was scored"):
        gallery.maps(gallery.samples[0])
