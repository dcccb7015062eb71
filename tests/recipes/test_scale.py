"""Recipes made smaller."""

from dataclasses import dataclass, replace
from typing import ClassVar

import pytest

from zerolabel.data.benchmarks import open_dataset
from zerolabel.data.planted import plant
from zerolabel.errors import UsageError
from zerolabel.jobs.experiments.cells import Cell, Experiment
from zerolabel.methods import METHODS, find
from zerolabel.recipes import scale
from zerolabel.recipes.places import CLASSIFIED, locate
from zerolabel.recipes.scale import DRY, SMALL, rehearse, small

MASKS = Cell(data="voc", split="val", method="kmeans", backbone="dino-vits8", settings={"k": 21})
JUDGED = Cell(data="voc", split="val", backbone="random-vits16", protocol="jaccard")


def test_small_takes_few_images_and_the_backbone_that_is_here(monkeypatch):
    monkeypatch.setattr(scale, "find_weights", lambda entry: None)
    knn = Cell(data=CLASSIFIED, backbone="filterbank", protocol="knn")
    made = small(Experiment(title="t", cells=(MASKS, JUDGED, knn)))
    assert made.note == SMALL
    assert [cell.backbone for cell in made.cells] == ["embedded", "random-vits16", "filterbank"]
    assert [cell.split for cell in made.cells] == ["val:24", "val:24", None]
    assert all(cell.settings["size"] == (224, 224) for cell in made.cells)


def test_small_keeps_weights_that_are_here(monkeypatch):
    monkeypatch.setattr(scale, "find_weights", lambda entry: "somewhere")
    [cell] = small(Experiment(title="t", cells=(MASKS,))).cells
    assert cell.backbone == "dino-vits8"


def test_cells_that_become_equal_are_run_once(monkeypatch, tmp_path):
    monkeypatch.setattr(scale, "find_weights", lambda entry: None)
    cells = [Cell(data="voc", method="kmeans", backbone=b) for b in ("dino-vits8", "dino-vits16")]
    seeds = [Cell(data="voc", method="kmeans", backbone="dino-vits8", seed=s) for s in (1, 2)]
    experiment = Experiment(title="t", cells=(*cells, *seeds))
    assert len(small(experiment).cells) == 1
    assert len(rehearse(experiment, tmp_path)[0].cells) == 1


def test_a_rehearsal_plants_what_the_cells_name(tmp_path):
    coco = Cell(data="cocostuff", split="curated-val", space="coco27", method="kmeans")
    knn = Cell(data=CLASSIFIED, backbone="dino-vits8", protocol="knn")
    made, places = rehearse(Experiment(title="t", cells=(MASKS, JUDGED, coco, knn)), tmp_path)
    assert made.note == DRY
    voc = open_dataset(places["voc"], split="val")
    assert len(voc.samples) == 2
    assert open_dataset(places["voc"], split="train").samples  # for probes
    assert open_dataset(places["cocostuff"], split="curated-val", space="coco27").samples
    assert {path.name for path in places[CLASSIFIED].iterdir()} == {"train", "val"}
    assert made.cells[0].settings["k"] == 2


def test_what_is_fitted_elsewhere_keeps_a_split_of_its_own(monkeypatch, tmp_path):
    monkeypatch.setattr(scale, "find_weights", lambda entry: None)
    own = replace(MASKS, train="train", seed=1)
    [cell] = small(Experiment(title="t", cells=(own,))).cells
    assert (cell.train, cell.split) == ("train:48", "val:24")
    made, places = rehearse(Experiment(title="t", cells=(own,)), tmp_path)
    assert made.cells[0].train == "train"
    ids = [{s.id for s in open_dataset(places["voc"], split=s).samples} for s in ("train", "val")]
    assert [len(own) for own in ids] == [2, 2]
    assert not ids[0] & ids[1]


def test_what_trains_does_so_for_less_time_and_nothing_else_is_given_iterations(
    monkeypatch, tmp_path
):
    @dataclass(frozen=True)
    class Trained:
        size: tuple[int, int] = (448, 448)
        iterations: int = 2500

    class Method:
        PRESETS: ClassVar = {"default": Trained()}

    monkeypatch.setitem(METHODS, "trained", "")
    monkeypatch.setattr(scale, "find", lambda name: Method if name == "trained" else find(name))
    monkeypatch.setattr(scale, "find_weights", lambda entry: None)
    cells = (replace(MASKS, method="trained"), MASKS, JUDGED)
    experiment = Experiment(title="t", cells=cells)
    for made, iterations in ((small(experiment), 300), (rehearse(experiment, tmp_path)[0], 2)):
        assert made.cells[0].settings["iterations"] == iterations
        assert all("iterations" not in cell.settings for cell in made.cells[1:])
        assert all("size" in cell.settings for cell in made.cells)


def test_a_part_of_a_split_is_fitted_on_as_far_as_it_is_small(monkeypatch, tmp_path):
    monkeypatch.setattr(scale, "find_weights", lambda entry: None)
    cells = [replace(MASKS, train=f"train:{n}") for n in (10, 500)]
    made = small(Experiment(title="t", cells=tuple(cells))).cells
    assert [cell.train for cell in made] == ["train:10", "train:48"]
    made, places = rehearse(Experiment(title="t", cells=tuple(cells)), tmp_path)
    assert [cell.train for cell in made.cells] == ["train:10", "train:500"]
    assert len(open_dataset(places["voc"], split="train:500").samples) == 2


def test_students_of_masks_are_light_ones_and_tiny_in_a_rehearsal(monkeypatch, tmp_path):
    monkeypatch.setattr(scale, "find_weights", lambda entry: None)
    taught = replace(MASKS, student="deeplabv3", student_settings={"start": "body.pth"})
    experiment = Experiment(title="t", cells=(MASKS, taught))
    alone, cell = small(experiment).cells
    assert (cell.student, cell.student_settings) == ("light", {"iterations": 300})
    assert (alone.student, alone.student_settings) == (None, {})
    light = replace(taught, student="light", student_settings={"refine": "bilinear"})
    [cell] = small(replace(experiment, cells=(light,))).cells
    assert cell.student_settings == {"refine": "bilinear", "iterations": 300}
    alone, cell = rehearse(experiment, tmp_path)[0].cells
    assert cell.student == "deeplabv3"
    assert {"arch": "small", "start": "random", "iterations": 2}.items() <= (
        cell.student_settings.items()
    )
    assert alone.student_settings == {}


def test_a_rehearsal_brings_a_network_that_describes_crops(tmp_path):
    settings = {"k": 6, "crop_encoder": "resnet", "crop_weights": "moco.pth"}
    cell = replace(MASKS, method="datus", settings=settings)
    [made] = rehearse(Experiment(title="t", cells=(cell,)), tmp_path)[0].cells
    assert made.settings["crop_weights"].endswith("body.safetensors")


def test_a_floor_keeps_having_no_backbone(tmp_path):
    floor = Cell(data="voc", method="mine", backbone="", settings={"k": 1})
    experiment = Experiment(title="t", cells=(floor,), makers={"mine": print})
    assert rehearse(experiment, tmp_path)[0].cells[0].backbone == ""
    assert small(experiment).cells[0].backbone == ""


def test_data_sets_are_found_in_folders_of_any_name(tmp_path):
    plant("voc", tmp_path / "first", images=1, size=(32, 32), splits=["val"])
    plant("suim", tmp_path / "second", images=1, size=(32, 32), splits=["test"])
    (tmp_path / "third" / "train" / "a").mkdir(parents=True)
    (tmp_path / "third" / "val").mkdir()
    (tmp_path / "fourth").mkdir()
    found = locate(tmp_path)
    assert {name: path.name for name, path in found.items()} == {
        "voc": "first",
        "suim": "second",
        CLASSIFIED: "third",
    }
    assert locate(tmp_path / "first") == {"voc": tmp_path / "first"}


def test_a_part_of_a_split_is_spread_evenly(tmp_path):
    root = plant("camvid", tmp_path, images=7, size=(32, 32), splits=["val"])
    whole = [sample.id for sample in open_dataset(root, split="val").samples]
    part = open_dataset(root, split="val:3")
    assert [sample.id for sample in part.samples] == [whole[0], whole[2], whole[4]]
    assert part.split == "val:3"
    assert len(open_dataset(root, split="val:99").samples) == 7
    assert len(open_dataset(root, split=":2").samples) == 2
    for wrong in ("val:", "val:0", "val:x", "val:-1"):
        with pytest.raises(UsageError, match="val:24"):
            open_dataset(root, split=wrong)
