"""A job with ACSeg: interrupted while it trains it goes on there; its report says how it went."""

import json
from html import unescape

import pytest
from PIL import Image
from test_resume import Killed, contents, limit_writes

import zerolabel
from zerolabel.backbones.filterbank import FilterBank
from zerolabel.data.synthetic import world
from zerolabel.methods.base import BATCH
from zerolabel.outputs.masks import read_mask
from zerolabel.stages import parts as training_parts
from zerolabel.training.concepts import ConceptTrainer

pytestmark = pytest.mark.usefixtures("small_worlds")
IMAGES, STEPS, KEEP = BATCH + 4, 17, 5  # two batches, four parts
OPTIONS = {
    "method": "acseg",
    "k": 3,
    "size": 64,
    "backbone": "filterbank",
    "iterations": STEPS,
    "batch": 8,
    "steps": 2,
    "concepts": 4,
    "describe": "pool",
    "background": "border",
}


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    for sample in world(3, images=IMAGES, size=(32, 48), per_image=3):
        Image.fromarray(sample.load()).save(folder / sample.id)
    (folder / "broken.jpg").write_text("no image")
    return folder


@pytest.fixture(autouse=True)
def _parts(monkeypatch):
    monkeypatch.setattr(training_parts, "KEEP", KEEP)


def segment(photos, out, **changes):
    return zerolabel.segment(photos, out, **OPTIONS | {"report": False} | changes)


@pytest.fixture(scope="module")
def whole(photos, tmp_path_factory):
    """A run that was left in peace."""
    return segment(photos, tmp_path_factory.mktemp("whole") / "run", report=True)


@pytest.fixture
def work(monkeypatch):
    """Count training steps and encoded images; end the program before the step "kill"."""
    seen = {"steps": 0, "images": 0, "kill": None}
    learn, encode = ConceptTrainer.learn, FilterBank.encode

    def counted(self, patches):
        if self.step == seen["kill"]:
            raise Killed
        seen["steps"] += 1
        return learn(self, patches)

    def encoded(self, images, **options):
        seen["images"] += len(images)
        return encode(self, images, **options)

    monkeypatch.setattr(ConceptTrainer, "learn", counted)
    monkeypatch.setattr(FilterBank, "encode", encoded)
    return seen


def run_json(out):
    return json.loads((out / "run.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("kill", [0, 4, 5, 13, 16])
def test_a_killed_job_goes_on_with_the_training_where_it_was(photos, whole, work, tmp_path, kill):
    out = tmp_path / "run"
    work["kill"] = kill
    with pytest.raises(Killed):
        segment(photos, out)
    assert work["images"] == IMAGES
    work.update(kill=None, steps=0, images=0)
    segment(photos, out)
    assert work["steps"] == STEPS - kill // KEEP * KEEP
    assert work["images"] == 0
    assert contents(out) == contents(whole.path)
    assert run_json(out)["attempts"] == 2
    assert [p.stem.count("-") for p in (out / "cache" / "concepts").iterdir()] == [0]


def test_a_job_killed_many_times(photos, whole, work, tmp_path):
    out = tmp_path / "run"
    for kill in (7, 11, 12):
        work["kill"] = kill
        with pytest.raises(Killed):
            segment(photos, out)
    work["kill"] = None
    segment(photos, out)
    assert work["steps"] == STEPS + 2 + 1 + 2
    assert contents(out) == contents(whole.path)
    work["steps"] = 0
    segment(photos, out)
    assert work["steps"] == 0


@pytest.mark.slow
def test_any_write_may_be_the_last(photos, whole, tmp_path):
    with pytest.MonkeyPatch.context() as patch:
        left = limit_writes(patch, 10**6)
        segment(photos, tmp_path / "counted")
        total = 10**6 - left[0]
    before = total - 2 * IMAGES - 5  # the first mask
    for writes in sorted({*range(1, before, 3), total - 1}):
        out = tmp_path / f"run-{writes}"
        with pytest.MonkeyPatch.context() as patch:
            limit_writes(patch, writes)
            with pytest.raises(Killed):
                segment(photos, out)
        segment(photos, out)
        assert contents(out) == contents(whole.path), f"killed after {writes} of {total} writes"
        assert not list(out.rglob("*.tmp"))


def test_the_training_and_the_regions_are_in_the_report(whole):
    page = unescape((whole.path / "report" / "index.html").read_text(encoding="utf-8"))
    for words in (
        "<h3>Training</h3>",
        "Loss of the training by step",
        "<h3>Regions per image</h3>",
        "on average, before they were given categories",
        "<h3>Regions</h3>",
        "as the method found them",
    ):
        assert words in page, words
    assert "How many categories" not in page  # k was given


def test_the_report_is_the_same_after_an_interruption(photos, whole, work, tmp_path):
    """Apart from what it cost."""
    work["kill"] = 13
    with pytest.raises(Killed):
        segment(photos, tmp_path / "run")
    work["kill"] = None
    segment(photos, tmp_path / "run", report=True)
    pages = [
        (path / "report" / "index.html").read_text(encoding="utf-8")
        for path in (whole.path, tmp_path / "run")
    ]
    plots = [page[page.index("<h3>Training</h3>") :].split("</figure>")[0] for page in pages]
    assert plots[0] == plots[1]
    tables = [page[page.index("Regions per image") :].split("</figure>")[0] for page in pages]
    assert tables[0] == tables[1]


def test_the_background_is_named_in_everything_that_is_written(photos, whole):
    categories = json.loads((whole.path / "categories.json").read_text())["categories"]
    assert [entry["name"] for entry in categories] == ["background", "category 1", "category 2"]
    assert [category.name for category in whole.categories][0] == "background"
    assert "background" in (whole.path / "report" / "index.html").read_text(encoding="utf-8")
    model = zerolabel.load(whole.path)
    assert model.categories == whole.categories
    for path in sorted(photos.glob("*.png"))[:3]:
        expected = read_mask(whole.path / "masks" / path.name)
        assert (model.predict(path).label_map == expected).all()
