"""MaskCLIP's decision, step by step, and what all methods with words share."""

import pytest
import torch
import torch.nn.functional as F
from planted_clip import WORDS, planted_clip, planted_photos

from zerolabel.backbones import load
from zerolabel.errors import UsageError
from zerolabel.jobs.run.settings import build
from zerolabel.ops import prompting
from zerolabel.store import Store

SMALL = {"classes": ", ".join(WORDS), "templates": "plain", "short": 64}
CLIP = planted_clip(noise=0.2, preferred=0.2)
PHOTOS = planted_photos(3, size=(64, 96))


def fitted(name="maskclip", *, clip=CLIP, **settings):
    method = build(name, clip, preset="protocol", settings=SMALL | settings)
    method.fit(PHOTOS, store=Store())
    return method


def evidence(method):
    found, failures = method.evidence(PHOTOS, store=Store())
    assert not failures
    return [one for _, one in found]


def cosines(clip=CLIP):
    """Of every photo at its own size, from scratch."""
    texts = clip.encode_texts([f"a photo of a {word}." for word in WORDS])
    for sample in PHOTOS:
        image = torch.from_numpy(sample.load()).permute(2, 0, 1)[None]
        dense = clip.encode(image, want={"dense"}).dense[0]
        yield torch.einsum("hwp,qp->qhw", F.normalize(dense, dim=-1), F.normalize(texts, dim=-1))


def test_scores_are_cosines_of_patches_and_texts():
    for said, expected in zip(evidence(fitted()), cosines(), strict=True):
        torch.testing.assert_close(said.scores / 100, expected, atol=2e-3, rtol=0)  # kept as halves


def test_words_that_no_patch_is_sure_of_never_win():
    some = False
    for said, logits in zip(evidence(fitted(denoise=0.9)), cosines(), strict=True):
        kept = prompting.denoise(logits, least=0.9, temperature=100.0)
        some = some or not bool(kept.all())
        assert bool(kept[said.scores.argmax(0).unique()].all())
    assert some


def test_a_word_stays_where_denoising_would_take_them_all():
    clip = planted_clip(noise=3.0)
    for said in evidence(fitted(clip=clip, denoise=1.0, temperature=1.0)):
        assert len(said.scores.argmax(0).unique()) == 1


def test_key_smoothing_takes_the_shares_of_patches_with_similar_keys():
    method = fitted(smooth=1.0)
    seen, _ = method.photos(PHOTOS, store=Store())
    for said, one in zip(evidence(method), seen, strict=True):
        shares = (100 * method.cosines(one)).softmax(0)
        expected = prompting.smooth(shares, one.keys, below=1.0)
        torch.testing.assert_close(said.scores, expected)
        assert not torch.equal(expected, shares)


def test_the_words_of_a_category_are_one_in_the_end():
    method = fitted(classes="earth: grass | sand, sky, stone: brick, snow, rust")
    assert method.class_names == ("earth", "sky", "stone", "snow", "rust")
    for said, logits in zip(evidence(method), cosines(), strict=True):
        best = logits[[1, 2]].amax(0)
        torch.testing.assert_close(said.scores[0] / 100, best, atol=2e-3, rtol=0)


def test_background_words_are_category_0_together():
    method = fitted(classes="sky, grass", background="sand, brick, snow, rust")
    assert method.class_names == ("background", "sky", "grass")
    for said, logits in zip(evidence(method), cosines(), strict=True):
        expected = torch.stack([logits[2:].amax(0), logits[0], logits[1]]).argmax(0)
        assert (said.scores.argmax(0) == expected).float().mean() > 0.98  # halves


def test_none_of_these_is_where_no_word_has_the_share():
    method = fitted(none=0.5, temperature=20.0)
    assert method.class_names == ("none of these", *WORDS)
    for said, logits in zip(evidence(method), cosines(), strict=True):
        shares = (20 * logits).softmax(0)
        unsure = shares.amax(0) < 0.5
        assert ((said.scores.argmax(0) == 0) == unsure).float().mean() > 0.98
        assert 0 < unsure.float().mean() < 1


def test_without_background_or_threshold_every_patch_has_a_word():
    method = fitted()
    assert method.class_names == WORDS
    won = {int(k) for said in evidence(method) for k in said.scores.argmax(0).unique()}
    truth = {int(k) for sample in PHOTOS for k in set(sample.load_label().ravel().tolist())}
    assert truth <= won


def test_a_photo_is_most_typical_where_it_is_most_like_the_word():
    method = fitted()
    for said, logits in zip(evidence(method), cosines(), strict=True):
        winners = logits.argmax(0)
        for k in range(len(WORDS)):
            here = winners == k
            expected = logits[k][here].max() if here.any() else torch.tensor(-1.0)
            torch.testing.assert_close(said.typical[k], expected, atol=2e-3, rtol=0)


@pytest.mark.parametrize(
    "change", [{"residual": False}, {"mlp": False}, {"legacy": True}], ids=lambda c: next(iter(c))
)
def test_the_reading_of_the_last_block_counts(change):
    clip = load("random-clipt16")
    plain, other = (evidence(fitted(clip=clip, **settings)) for settings in ({}, change))
    assert not torch.allclose(plain[0].scores, other[0].scores)
    assert torch.equal(plain[0].scores, evidence(fitted(clip=clip))[0].scores)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"none": 1.0}, "none and denoise"),
        ({"templates": "many"}, "templates"),
        ({"classes": "sky", "background": "SKY"}, "sky"),
        ({"classes": "sky, Sky"}, "ky"),
        ({"classes": " , "}, "class"),
    ],
)
def test_settings_that_cannot_be_are_refused_before_any_work(settings, words):
    with pytest.raises(UsageError, match=words):
        build("maskclip", CLIP, settings=SMALL | settings)


def test_words_are_needed():
    method = build("maskclip", CLIP, settings=SMALL | {"classes": ""})
    with pytest.raises(UsageError, match="--classes"):
        method.fit(PHOTOS, store=Store())


def test_another_backbone_is_refused():
    with pytest.raises(UsageError, match="clip-vitb16"):
        build("maskclip", load("filterbank"), settings=SMALL)


def test_a_threshold_takes_the_place_of_a_first_class_called_background():
    method = fitted(classes="background, sky, grass", none=0.4)
    assert method.class_names == ("background", "sky", "grass")
    assert len(method.arrays["queries"]) == 2
    plain = fitted(classes="background: sand | rust, sky, grass")
    assert plain.class_names == method.class_names
    assert len(plain.arrays["queries"]) == 4
