"""ReCLIP and ReCLIP++: what their settings do, and that a training can be interrupted."""

import pytest
import torch
import torch.nn.functional as F
from planted_clip import WORDS, planted_clip, planted_photos

from zerolabel.backbones import load
from zerolabel.errors import UsageError
from zerolabel.jobs.run.settings import build
from zerolabel.stages import parts
from zerolabel.store import Store

PHOTOS = planted_photos(6, size=(64, 96))
CLIP = planted_clip(noise=0.1, preferred=0.2)
TINY = {
    **{"classes": ", ".join(WORDS), "templates": "plain", "short": 64, "crop": 64},
    **{"crop_size": 32, "steps": 6, "batch": 2, "distort": False},
}
STUDENT = {"student": "small", "student_steps": 3}


def fitted(name="reclip++", *, clip=CLIP, store=None, photos=PHOTOS, **settings):
    method = build(name, clip, preset="protocol", settings=TINY | settings)
    method.fit(photos, store=store or Store())
    return method


def scores(method):
    return [one.scores for _, one in method.evidence(PHOTOS, store=Store())[0]]


@pytest.mark.parametrize(
    "change",
    [
        {"query": "learned"},
        {"combine": "add"},
        {"decoder": False},
        {"bias": "joint"},
        {"norm": "rows"},
        {"start": "kaiming"},
        {"pool": "mask"},
        {"cosine": True},
        {"lr": 0.1},
        {"scale": 1000.0},
        {"hypothesis": "whole", "least": 85.0},
        {"seed": 1},
    ],
    ids=lambda change: "-".join(change),
)
def test_every_setting_of_the_rectification_counts(change):
    plain, other = scores(fitted()), scores(fitted(**change))
    assert any(not torch.allclose(a, b) for a, b in zip(plain, other, strict=True))
    assert all(score.isfinite().all() for score in other)


def test_nothing_but_the_seed_is_random():
    assert all(map(torch.equal, scores(fitted()), scores(fitted())))


def test_an_interrupted_rectification_ends_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(parts, "KEEP", 2)
    whole = fitted()
    calls = []

    def report(work, done, total):
        calls.append(work)
        if work == "train" and done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fitted(store=Store(tmp_path, report=report))
    again = fitted(store=Store(tmp_path))
    for name, value in whole.arrays.items():
        assert torch.equal(value, again.arrays[name]), name
    assert "train" in calls
    assert list((tmp_path / "cache" / "rectify").glob("*")) != []


def test_a_rectifier_without_bias_and_decoder_is_maskclip():
    method = fitted(decoder=False)
    plain = build("maskclip", CLIP, preset="protocol", settings={**words_only()})
    plain.fit(PHOTOS, store=Store())
    weights = {
        name: torch.zeros_like(value) if name.startswith("rectifier.space") else value
        for name, value in method.arrays.items()
    }
    method.arrays = weights
    for a, b in zip(scores(method), scores(plain), strict=True):
        torch.testing.assert_close(a / method.config.temperature, b / plain.config.temperature)


def words_only():
    return {name: TINY[name] for name in ("classes", "templates", "short")}


def test_epochs_count_passes_over_the_photos():
    method = fitted(epochs=2)  # 6 photos in batches of 2
    assert max(method.losses) == 6
    assert max(fitted(steps=4).losses) == 4


def test_an_image_tower_that_learns_is_kept_and_looks_itself():
    clip = load("random-clipt16")
    method = fitted(clip=clip, tower="tuned", lr=0.1)
    frozen = fitted(clip=clip, lr=0.1)
    kept = {name for name in method.arrays if name.startswith("tower.")}
    assert kept == {f"tower.{name}" for name in clip.net.state_dict()}
    dense = method.photos(PHOTOS, store=Store())[0][0].dense
    assert not torch.allclose(dense, frozen.photos(PHOTOS, store=Store())[0][0].dense, atol=1e-3)
    assert torch.equal(clip.net.proj, load("random-clipt16").net.proj)  # the backbone's own stays
    with pytest.raises(UsageError, match="no student"):
        build("reclip++", clip, settings=TINY | {"tower": "tuned", "student": "small"})


@pytest.mark.parametrize("head", ["inherited", "query+bias", "query", "own"])
@pytest.mark.parametrize("name", ["reclip", "reclip++"])
def test_a_student_with_any_head_takes_the_place_of_clip(name, head):
    method = fitted(name, head=head, **STUDENT)
    assert any("random weights" in note for note in method.notes)
    [(_, one), *_], _ = method.evidence(PHOTOS, store=Store())
    assert one.scores.shape == (len(WORDS), 8, 12)
    teacher = fitted(name)
    assert not torch.allclose(one.scores, scores(teacher)[0])


def test_a_student_of_maskclip_has_fixed_texts_for_a_classifier():
    settings = {k: v for k, v in TINY.items() if k not in ("crop_size", "steps")}
    method = build("maskclip+", CLIP, preset="protocol", settings=settings | STUDENT)
    method.fit(PHOTOS, store=Store())
    seen, _ = method.photos(PHOTOS[:1], store=Store())
    [(_, one)], _ = method.evidence(PHOTOS[:1], store=Store())
    expected = (seen[0].dense @ method.arrays["queries"].T).permute(2, 0, 1)
    torch.testing.assert_close(one.scores / 100, expected)
    for change, words in (({"student": "none"}, "maskclip"), ({"head": "inherited"}, "head")):
        with pytest.raises(UsageError, match=words):
            build("maskclip+", CLIP, settings=settings | change)


def test_explain_draws_query_bias_and_what_is_left():
    method = fitted(decoder=False)
    found = method.look_into(PHOTOS[0], store=Store())
    names = list(found.maps)
    first = names[0].partition(":")[0]
    assert names[:3] == [f"{first}: query", f"{first}: bias", f"{first}: rectified"]
    query, bias, rectified = (found.maps[name] for name in names[:3])
    torch.testing.assert_close(query - bias, rectified, atol=1e-5, rtol=0)
    assert found.parts.shape == query.shape == (8, 12)


def test_one_word_is_not_enough():
    with pytest.raises(UsageError, match="two words or more"):
        fitted(classes="sky")
    assert fitted(classes="sky", background="grass, sand").class_names == ("background", "sky")


def test_names_are_longer_than_the_paper_has_room_for():
    names = "sky, grass growing between old stones"
    fitted(classes=names)
    with pytest.raises(UsageError, match="73 learned vectors"):
        fitted(classes=names, prompt="paper")


def test_unit_vectors_or_not_the_teacher_says_the_same():
    method = fitted()
    seen, _ = method.photos(PHOTOS[:1], store=Store())
    long = 3 * seen[0].dense
    positions = CLIP.positions(long.shape[:2])
    with torch.no_grad():
        a, b = (method.scores(x[None], positions) for x in (long, F.normalize(long, dim=-1)))
    torch.testing.assert_close(a, b)


def test_students_in_one_store_are_those_of_their_words(tmp_path):
    settings = {k: v for k, v in TINY.items() if k not in ("crop_size", "steps", "classes")}
    heads = []
    for classes in ("sky, grass, sand", "sand, sky, grass"):
        words = {"classes": classes}
        method = build("maskclip+", CLIP, preset="protocol", settings=settings | STUDENT | words)
        method.fit(PHOTOS, store=Store(tmp_path))
        heads.append(method.arrays["head.queries"])
        assert torch.equal(heads[-1], method.arrays["queries"])
    assert torch.equal(heads[0][[2, 0, 1]], heads[1])
