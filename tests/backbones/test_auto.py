"""Which backbone a user gets who names none."""

import hashlib
import json

import pytest
import torch
from PIL import Image

from zerolabel import backbones
from zerolabel.backbones import choose, load, registry, weights
from zerolabel.data.synthetic import world
from zerolabel.errors import UsageError, WeightsError
from zerolabel.jobs.fit import Options
from zerolabel.jobs.segment import segment


@pytest.fixture
def cached(monkeypatch):
    """Pretend that the weights of DINO are, or are not, on this machine."""
    real = weights.find

    def set_to(path):
        monkeypatch.setattr(
            weights, "find", lambda item: path if item.name == "dino-vits16" else real(item)
        )

    return set_to


def test_auto_is_dino_where_its_weights_are(cached, tmp_path):
    cached(tmp_path / "model.safetensors")
    assert choose("auto") == ("dino-vits16", "")


def test_auto_is_embedded_elsewhere_and_says_how_to_get_better(cached):
    cached(None)
    name, hint = choose("auto")
    assert name == "embedded"
    for part in ("zerolabel models get dino-vits16", "87 MB", "Apache-2.0"):
        assert part in hint


def test_a_name_or_a_file_decides(cached, tmp_path):
    cached(None)
    assert choose("dino-vitb8") == ("dino-vitb8", "")
    assert choose("auto", weights=tmp_path / "mine.safetensors") == ("mine", "")


def test_the_embedded_backbone_is_what_the_registry_says():
    item, backbone = registry.entry("embedded"), load("embedded", device="cpu")
    assert sum(p.numel() for p in backbone.net.parameters()) == item.parameters
    path = weights.find(item)
    assert path is not None
    assert path.stat().st_size <= 16e6
    assert hashlib.sha256(path.read_bytes()).hexdigest() == item.sha256
    found = backbone.encode(
        torch.randint(0, 256, (1, 3, 40, 64), dtype=torch.uint8), want=backbone.gives
    )
    assert found.tokens.shape == (1, 5, 8, 192)
    assert found.attention.shape == (1, 3, 5, 8)
    assert all(torch.isfinite(x).all() for x in (found.tokens, found.keys, found.cls))


def test_a_lost_file_is_an_error_that_helps(monkeypatch):
    monkeypatch.setattr(weights, "find", lambda item: None)
    with pytest.raises(WeightsError, match="Install zerolabel again"):
        load("embedded", device="cpu")
    with pytest.raises(UsageError, match="comes with its weights"):
        weights.get("embedded")


def test_a_resumed_run_keeps_its_backbone(monkeypatch, tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    for sample in world(3, images=2, size=(32, 48), per_image=3):
        Image.fromarray(sample.load()).save(photos / sample.id)
    options = Options(method="kmeans", settings={"k": 2, "size": 32})
    answers = iter([("random-vitt16", ""), ("filterbank", "")])
    monkeypatch.setattr(backbones, "choose", lambda name, weights=None: next(answers))
    for _ in range(2):  # the second time "auto" would be another one
        segment(photos, tmp_path / "run", options=options, report=False)
        run = json.loads((tmp_path / "run" / "run.json").read_text(encoding="utf-8"))
        assert run["job"]["backbone"] == "random-vitt16"
