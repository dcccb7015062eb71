import hashlib
import json

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from planted import tiny_vit

from zerolabel import backbones
from zerolabel.cli import main
from zerolabel.cli.evaluate import evaluate
from zerolabel.data.classified import central
from zerolabel.data.transforms import squash
from zerolabel.errors import DataError, UsageError
from zerolabel.evaluation.probes import knn, linear_probe, mean_patch
from zerolabel.jobs.evaluate import evaluate as evaluate_run
from zerolabel.jobs.probing.knn import evaluate_knn
from zerolabel.jobs.probing.linear import evaluate_linear
from zerolabel.types import Features

COLOURS = np.array([[220, 30, 30], [30, 210, 40], [40, 60, 220]], np.uint8)
NAMES = ("bicyclist", "building", "car")  # any three of CamVid's classes


class Colours:
    """A backbone whose tokens are the mean colour of a patch, and whose CLS token is noise.

    Every colour is there many times over, so that a layer learns quickly.
    """

    name, gives, stride, dim, learns = "colours", frozenset({"tokens", "cls"}), 8, 24, 0
    digest = "0123"

    def __init__(self):
        self.seen = 0

    def encode(self, images, *, want):
        self.seen += len(images)
        tokens = (
            torch.nn.functional.avg_pool2d(images.float() / 255, 8)
            .permute(0, 2, 3, 1)
            .repeat(1, 1, 1, 8)
        )
        noise = torch.sin(1000 * images.float().mean((2, 3)))
        return Features(tokens=tokens, cls=noise if "cls" in want else None)


@pytest.fixture(autouse=True)
def planted(monkeypatch):
    """The backbones "colours" and "tiny" are planted; the others are as ever."""
    load, colours = backbones.load, Colours()

    def found(name, **others):
        return {"colours": lambda: colours, "tiny": tiny_vit}.get(
            name, lambda: load(name, **others)
        )()

    monkeypatch.setattr(backbones, "load", found)
    return colours


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def noisy(ids, seed):
    noise = np.random.default_rng(seed).normal(0, 12, (*ids.shape, 3))
    return np.clip(COLOURS[np.minimum(ids, 2)] + noise, 0, 255).astype(np.uint8)


def label(seed):
    """Nine tiles of 16 pixels, all classes among them, and a stripe that is void."""
    ids = np.random.default_rng(seed).permutation([0, 1, 2] * 3).reshape(3, 3)
    ids = ids.repeat(16, 0).repeat(16, 1).astype(np.uint8)
    ids[:2] = 11
    return ids


@pytest.fixture
def scenes(tmp_path):
    """CamVid's layout: 24 images to train on, 6 to score."""
    root = tmp_path / "scenes"
    for split, count, start in (("train", 24, 0), ("val", 6, 100)):
        for i in range(count):
            ids = label(start + i)
            save(root / split / f"{i:02}.png", noisy(ids, start + i))
            save(root / f"{split}annot" / f"{i:02}.png", ids)
    return root


@pytest.fixture
def photos(tmp_path):
    """Class folders: red and blue, 12 in the bank and 4 to ask for."""
    bank, queries = tmp_path / "bank", tmp_path / "queries"
    for i in range(16):
        kind = i % 2
        image = noisy(np.full((40 + i, 52), 2 * kind), i)
        save((queries if i < 4 else bank) / ("red", "blue")[kind] / f"{i}.png", image)
    return bank, queries


def write_pack(path, folder, names=("blue", "red")):
    files = sorted(folder.rglob("*.png"))
    blobs = [file.read_bytes() for file in files]
    offsets = np.cumsum([0, *map(len, blobs)]).astype(np.int64)
    labels = [names.index(file.parent.name) for file in files]
    np.savez(path, data=np.frombuffer(b"".join(blobs), np.uint8), offsets=offsets, labels=labels)
    return path


def stop_at(work, done):
    def progress(name, count, _):
        if (name, count) == (work, done):
            raise KeyboardInterrupt

    return progress


def test_the_probe_finds_planted_classes(scenes, tmp_path):
    out = tmp_path / "out"
    result = evaluate_linear(scenes, backbone="colours", size=(50, 55), seeds=2, out=out)
    assert result["size"] == [48, 48], "whole patches"
    assert (result["images"], result["train_images"]) == (6, 24)
    assert [result[key] for key in ("dataset", "split", "train_split")] == [
        "camvid",
        "val",
        "train",
    ]
    assert result["seeds"] == [0, 1]
    assert result["classes"] == 3
    assert 0.1 < result["floor"] < 0.15
    assert result["miou"]["mean"] > 0.8
    assert result["pixel_accuracy"]["mean"] > 0.9
    assert result["weights"] == "0123"
    assert result["train_hash"] != result["data_hash"]
    assert result["protocol"]["id"] == "linear-probe"
    assert [entry["iou"] is None for entry in result["per_class"]] == [False] * 3 + [True] * 8
    assert json.loads((out / "evaluation-linear-probe.json").read_text()) == result


def test_the_probe_is_that_of_the_tokens(scenes):
    """Image by image from the backbone, with labels at their own size; float16 in between."""
    result = evaluate_linear(scenes, backbone="tiny", size=(48, 48), seeds=1)
    tokens, labels = {}, {}
    for split in ("train", "val"):
        files = sorted((scenes / split).iterdir())
        images = [squash(np.asarray(Image.open(file)), (48, 48)) for file in files]
        encoded = [tiny_vit().encode(x[None], want={"tokens"}).tokens[0] for x in images]
        tokens[split] = torch.stack(encoded).half()
        labels[split] = [
            np.asarray(Image.open(scenes / f"{split}annot" / file.name)) for file in files
        ]
    expected = linear_probe(
        tokens["train"], labels["train"], tokens["val"], labels["val"], classes=11, seed=0
    )
    assert result["miou"]["mean"] == pytest.approx(expected.miou, abs=1e-3)
    assert result["miou"]["std"] is None
    assert result["floor"] == expected.floor
    assert result["classes"] == expected.classes


def test_a_backbone_that_learns_learns_from_the_training_images(scenes, monkeypatch):
    from zerolabel.backbones.filterbank import Config, FilterBank

    seen = []
    load = FilterBank.learn

    def learn(self, batches, *, seed):
        batches = list(batches)
        seen.append(sum(map(len, batches)))
        return load(self, batches, seed=seed)

    monkeypatch.setattr(FilterBank, "learn", learn)
    monkeypatch.setattr(
        backbones, "load", lambda *_, **__: FilterBank(Config(atoms=8, patches=500))
    )
    result = evaluate_linear(scenes, size=(48, 48), seeds=1)
    assert seen == [24]
    assert result["backbone"] == "filterbank"
    assert result["miou"]["mean"] > result["floor"]


def test_an_interrupted_probe_goes_on(scenes, tmp_path, planted):
    settings = {"backbone": "colours", "size": (48, 48), "seeds": 2}
    whole = evaluate_linear(scenes, **settings)
    out, planted.seen = tmp_path / "out", 0
    with pytest.raises(KeyboardInterrupt):
        evaluate_linear(scenes, **settings, out=out, progress=stop_at("tokens of train", 16))
    assert planted.seen == 16
    assert not (out / "evaluation-linear-probe.json").exists()
    assert evaluate_linear(scenes, **settings, out=out) == whole
    assert planted.seen == 30
    evaluate_linear(scenes, backbone="colours", size=(48, 48), seeds=1, out=out)
    assert planted.seen == 30, "other seeds take the same tokens"


def test_errors_of_the_probe(scenes, tmp_path):
    with pytest.raises(UsageError, match="seeds is the number of repetitions"):
        evaluate_linear(scenes, backbone="colours", seeds=0)
    with pytest.raises(UsageError, match="size is 7x99, but colours needs at least 8"):
        evaluate_linear(scenes, backbone="colours", size=(7, 99))
    with pytest.raises(UsageError, match="name another split to score"):
        evaluate_linear(scenes, backbone="colours", split="train")
    with pytest.raises(DataError, match="does not have both. Unknown split 'test'"):
        evaluate_linear(scenes, backbone="colours", split="test")
    with pytest.raises(DataError, match="not a labelled data set"):
        evaluate_linear(scenes / "train", backbone="colours")
    with pytest.raises(UsageError, match="judges the features of a backbone"):
        evaluate_run(scenes, scenes, protocol="linear-probe")
    single = tmp_path / "single"
    save(single / "images" / "a.png", noisy(label(0), 0))
    save(single / "masks" / "a.png", label(0))
    with pytest.raises(DataError, match="labels of the split train and is scored on val"):
        evaluate_linear(single, backbone="colours")
    (scenes / "val" / "03.png").write_bytes(b"torn")
    with pytest.raises(DataError, match=r"03\.png: not an image.*must be readable"):
        evaluate_linear(scenes, backbone="colours", size=(48, 48), seeds=1)


def test_neighbours_find_planted_classes(photos, tmp_path):
    bank, queries = photos
    out = tmp_path / "out"
    result = evaluate_knn([bank], queries, backbone="colours", size=(41, 41), k=(3, 9, 99), out=out)
    assert result["size"] == [40, 40]
    found = {(entry["feature"], entry["k"]): entry for entry in result["scores"]}
    assert sorted(found) == [(f, k) for f in ("cls", "mean_patch") for k in (3, 9, 12)]
    assert all(found["mean_patch", k]["top1"] == 1 for k in (3, 9, 12))
    assert found["cls", 3]["top5"] is None
    assert found["cls", 9]["top5"] == 1, "there are two classes only"
    assert (result["bank_images"], result["images"], result["classes"]) == (12, 4, 2)
    assert (result["floor"], result["unknown"], result["shared"]) == (0.5, 0, 0)
    assert (result["weights"], result["temperature"]) == ("0123", 0.07)
    assert json.loads((out / "evaluation-knn.json").read_text()) == result


def test_neighbours_are_those_of_the_tokens(photos):
    """Image by image from the network; float16 in between."""
    bank, queries = photos
    result = evaluate_knn([bank], queries, backbone="tiny", size=(32, 32), k=(5,))
    vectors, labels = {}, {}
    for folder in photos:
        files = sorted(folder.rglob("*.png"), key=lambda file: file.relative_to(folder).as_posix())
        images = torch.stack([central(np.asarray(Image.open(file)), 32) for file in files])
        features = [tiny_vit().encode(x[None], want={"tokens", "cls"}) for x in images]
        vectors[folder] = {
            "cls": torch.cat([f.cls for f in features]).half(),
            "mean_patch": torch.cat([mean_patch(f.tokens) for f in features]).half(),
        }
        labels[folder] = torch.tensor([file.parent.name == "red" for file in files]).long()
    for entry in result["scores"]:
        x, q = (vectors[folder][entry["feature"]] for folder in photos)
        expected = knn(x, labels[bank], q, labels[queries], k=5)
        assert (entry["top1"], entry["top5"]) == (expected.top1, expected.top5)


def test_packs_and_folders_agree(photos, tmp_path):
    """Two packs as a bank are the folder that they were made of, if classes are called alike."""
    bank, queries = photos
    numbered = tmp_path / "numbered"
    for part in ("bank", "queries"):
        (numbered / part).mkdir(parents=True)
        for number, name in enumerate(("blue", "red")):
            (tmp_path / part / name).rename(numbered / part / str(number))
    bank, queries = numbered / "bank", numbered / "queries"
    packs = [write_pack(tmp_path / f"{i}.npz", bank / str(i), names=("0", "1")) for i in range(2)]
    asked = write_pack(tmp_path / "q.npz", queries, names=("0", "1"))
    settings = {"backbone": "colours", "size": (40, 40)}
    folders = evaluate_knn([bank], queries, **settings)
    assert evaluate_knn(packs, queries, **settings)["scores"] == folders["scores"]
    assert evaluate_knn([bank], asked, **settings)["scores"] == folders["scores"]
    assert folders["scores"][-1]["k"] == 12


def test_a_backbone_without_cls_gives_the_mean_only(photos):
    result = evaluate_knn([photos[0]], photos[1], size=(32, 32), backbone="filterbank")
    assert {entry["feature"] for entry in result["scores"]} == {"mean_patch"}


def test_interrupted_neighbours_go_on(photos, tmp_path, planted, monkeypatch):
    monkeypatch.setattr("zerolabel.jobs.probing.knn.CHUNK", 5)
    bank, queries = photos
    settings = {"backbone": "colours", "size": (40, 40)}
    whole = evaluate_knn([bank], queries, **settings)
    out, planted.seen = tmp_path / "out", 0
    with pytest.raises(KeyboardInterrupt):
        evaluate_knn([bank], queries, **settings, out=out, progress=stop_at("bank", 10))
    assert planted.seen == 10
    assert evaluate_knn([bank], queries, **settings, out=out) == whole
    assert planted.seen == 16
    evaluate_knn([bank], queries, backbone="colours", size=(40, 40), k=(1,), out=out)
    assert planted.seen == 16
    evaluate_knn([bank], queries, backbone="colours", size=(32, 32), out=out)
    assert planted.seen == 32, "another geometry is encoded anew"
    cached = list((out / "cache").rglob("*.safetensors"))
    assert cached
    before = hashlib.sha256(cached[0].read_bytes()).hexdigest()
    evaluate_knn([bank], queries, **settings, out=out)
    assert hashlib.sha256(cached[0].read_bytes()).hexdigest() == before


def test_queries_that_do_not_fit_are_told(photos, tmp_path):
    bank, queries = photos
    red = next((bank / "red").iterdir())
    (queries / "red" / "copy.png").write_bytes(red.read_bytes())
    save(queries / "green" / "x.png", noisy(np.full((40, 40), 1), 5))
    result = evaluate_knn([bank], queries, backbone="colours", size=(40, 40), k=(3,))
    assert (result["images"], result["shared"], result["unknown"]) == (6, 1, 1)
    assert result["scores"][1]["top1"] == pytest.approx(5 / 6)
    with pytest.raises(DataError, match="Every image of the queries bank is also in the bank"):
        evaluate_knn([bank], bank, backbone="colours")
    (queries / "blue").rename(tmp_path / "b")
    (queries / "red").rename(queries / "rouge")
    with pytest.raises(DataError, match="the classes blue, red, .* the classes green, rouge"):
        evaluate_knn([bank], queries, backbone="colours")
    with pytest.raises(DataError, match="Expected 2 classes or more in the bank"):
        evaluate_knn([queries], bank, backbone="colours")
    (queries / "green").rename(bank / "green")
    with pytest.raises(DataError, match="has the class rouge, .* Expected 2 classes or more"):
        evaluate_knn([queries], bank, backbone="colours")


def test_errors_of_neighbours(photos):
    bank, queries = photos
    with pytest.raises(UsageError, match="give one size, not 40x48"):
        evaluate_knn([bank], queries, backbone="colours", size=(40, 48))
    with pytest.raises(UsageError, match="size is 4x4, but colours needs at least 8"):
        evaluate_knn([bank], queries, backbone="colours", size=(4, 4))
    with pytest.raises(UsageError, match="each at least 1; found"):
        evaluate_knn([bank], queries, backbone="colours", k=(0, 3))
    with pytest.raises(UsageError, match="at least one bank"):
        evaluate_knn([], queries, backbone="colours")
    with pytest.raises(UsageError, match="--protocol knn .*--queries QUERIES"):
        evaluate_run(bank, bank, protocol="knn")
    (queries / "red" / "torn.png").write_bytes(b"torn")
    with pytest.raises(DataError, match=r"red/torn\.png: not an image.*must be readable"):
        evaluate_knn([bank], queries, backbone="colours", size=(40, 40))


def invoke(*words):
    return CliRunner().invoke(evaluate, [str(word) for word in words])


def test_the_command_of_the_probe(scenes, tmp_path):
    words = ("--protocol", "linear-probe", "--backbone", "colours", "--size", "48", "--seeds", 2)
    result = invoke(scenes, *words, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0] == (
        "protocol linear-probe, camvid, colours at 48x48, trained on 24 images of train, "
        "scored on 6 of val, 2 seeds"
    )
    assert lines[2].split() == ["class", "IoU", "std"]
    assert len(lines) == 16
    scores = json.loads((tmp_path / "out" / "evaluation-linear-probe.json").read_text())
    mean, deviation = (100 * scores["miou"][key] for key in ("mean", "std"))
    assert f"mIoU {mean:.1f} +- {deviation:.1f}   pixel accuracy" in lines[-1]
    assert lines[-1].endswith("(percent, C = 3)")


def test_the_command_of_neighbours(photos, tmp_path):
    bank, queries = photos
    more = tmp_path / "more"
    save(more / "red" / "x.png", noisy(np.zeros((40, 40), int), 77))
    save(queries / "green" / "x.png", noisy(np.ones((40, 40), int), 78))
    words = ("--protocol", "knn", "--backbone", "colours", "--size", "40", "--k", "3, 9")
    result = invoke(bank, more, *words, "--queries", queries, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0] == (
        "protocol knn, colours at 40x40, 5 queries of queries, 13 in the bank bank, more, C = 2"
    )
    assert lines[1].startswith("note: 1 of the queries are of classes that the bank does not hold")
    assert lines[3].split() == ["feature", "k", "top-1", "top-5"]
    assert "mean patch  3   80.0      -" in lines
    assert lines[-1] == "one class everywhere 40.0   (percent)"
    assert (tmp_path / "out" / "evaluation-knn.json").is_file()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--protocol", "knn"), "Missing option '--queries'"),
        (("--protocol", "knn", "--queries", ".", "--k", "3,x"), "whole numbers such as 10,20"),
        (("--protocol", "knn", "--queries", ".", "--split", "val"), "--split: for --protocol jac"),
        (("--protocol", "linear-probe", "--data", "."), "takes the data set in the place of RUN"),
        (("--protocol", "linear-probe", "--k", "3"), "--k: for --protocol knn only"),
        (("--protocol", "linear-probe", "."), "takes one folder, found 2"),
        (("--data", ".", "--seeds", "3"), "--seeds: for --protocol linear-probe or"),
    ],
)
def test_words_that_do_not_belong_together(scenes, words, message):
    result = invoke(scenes, *words)
    assert result.exit_code == 2
    assert message in result.output


def test_a_file_is_no_data_set(tmp_path):
    file = tmp_path / "bank.npz"
    file.write_bytes(b"")
    result = invoke(file, "--protocol", "linear-probe")
    assert result.exit_code == 2
    assert "is a file" in result.output


@pytest.mark.parametrize(
    ("words", "code"),
    [(("--protocol", "linear-probe"), 1), (("--protocol", "knn", "--queries", "PHOTOS"), 2)],
)
def test_exit_codes_tell_data_from_usage(photos, monkeypatch, capsys, words, code):
    """No data set with splits is the data's fault, a size below a patch the user's."""
    bank, queries = map(str, photos)
    words = [queries if word == "PHOTOS" else word for word in words]
    arguments = ["zerolabel", "evaluate", bank, *words, "--backbone", "colours", "--size", "4"]
    monkeypatch.setattr("sys.argv", arguments)
    with pytest.raises(SystemExit) as end:
        main.main()
    assert end.value.code == code
    assert "zerolabel: " in capsys.readouterr().err
