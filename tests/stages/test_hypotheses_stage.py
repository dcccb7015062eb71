"""Which words a photo shows, said by crops or by the whole of it."""

import pytest
import torch
import torch.nn.functional as F
from planted_clip import WORDS, planted_clip, planted_photos

from zerolabel.data.folder import from_arrays
from zerolabel.errors import DataError, ImageError, UsageError
from zerolabel.ops import hypotheses as rules
from zerolabel.ops.resize import resize
from zerolabel.stages.hypotheses import Hypotheses, check, joint, present
from zerolabel.store import Store
from zerolabel.types import Sample

CLIP = planted_clip()
CROPS = Hypotheses(crop_size=32, window_share=1 / 3)
PHOTOS = planted_photos(5, size=(64, 96))


def texts(words=WORDS):
    found = CLIP.encode_texts([f"a photo of a {word}." for word in words])
    return F.normalize(found, dim=-1)


def torn():
    def load():
        raise ImageError("torn")

    return Sample("torn.png", load, lambda: "torn")


def test_crops_of_a_photo_are_its_windows():
    [features], [sample], _ = joint(CLIP, PHOTOS[:1], CROPS, store=Store())
    image = torch.from_numpy(sample.load()).permute(2, 0, 1)[None]
    boxes = rules.windows((64, 96), share=1 / 3)
    assert len(features) == len(boxes) == 25
    for (top, left, bottom, right), found in zip(boxes.tolist(), features, strict=True):
        crop = resize(image[..., top:bottom, left:right], (32, 32))
        expected = F.normalize(CLIP.encode(crop, want={"joint"}).joint[0], dim=0)
        torch.testing.assert_close(found, expected, atol=1e-3, rtol=0)


def test_the_batch_of_the_forward_changes_nothing():
    few, many = (
        joint(CLIP, PHOTOS, Hypotheses(crop_size=32, crop_batch=n), store=Store())[0]
        for n in (7, 64)
    )
    for a, b in zip(few, many, strict=True):
        torch.testing.assert_close(a, b, atol=1e-3, rtol=0)


def test_words_that_are_there_are_found():
    found = present(CLIP, PHOTOS, texts(), CROPS, store=Store())
    truth = torch.tensor([[(s.load_label() == k).any() for k in range(6)] for s in PHOTOS])
    assert not (found.words & ~truth).any()
    assert (found.words & truth).sum() >= 0.9 * truth.sum()


def test_the_whole_photo_says_it_by_its_cosines():
    options = Hypotheses(hypothesis="whole", least=85.0, crop_size=32)
    found = present(CLIP, PHOTOS, texts(), options, store=Store())
    for sample, words in zip(found.samples, found.words, strict=True):
        image = torch.from_numpy(sample.load()).permute(2, 0, 1)[None]
        whole = CLIP.encode(resize(image, (32, 32)), want={"joint"}).joint[0]
        expected = rules.from_whole(F.normalize(whole, dim=0), texts(), least=85.0, most=2)
        assert torch.equal(words, expected)


def test_new_words_cost_no_forward(tmp_path, monkeypatch):
    first = present(CLIP, PHOTOS, texts(), CROPS, store=Store(tmp_path))
    monkeypatch.setattr(CLIP, "encode", lambda *a, **k: pytest.fail("encoded twice"))
    again = present(CLIP, PHOTOS, texts(), CROPS, store=Store(tmp_path))
    assert torch.equal(first.words, again.words)
    fewer = present(CLIP, PHOTOS, texts(WORDS[:3]), CROPS, store=Store(tmp_path))
    assert fewer.words.shape == (5, 3)
    assert fewer.words.any(1).all()


def test_photos_that_cannot_be_read_are_told():
    found = present(CLIP, [PHOTOS[0], torn(), PHOTOS[1]], texts(), CROPS, store=Store())
    assert [sample.id for sample in found.samples] == [PHOTOS[0].id, PHOTOS[1].id]
    assert len(found.words) == 2
    assert found.failures == {"torn.png": "torn"}
    with pytest.raises(DataError, match="None of the images"):
        present(CLIP, [torn()], texts(), CROPS, store=Store())


def test_a_photo_smaller_than_a_window_has_one():
    dot = from_arrays("dot.png", PHOTOS[0].load()[:1, :1])
    options = Hypotheses(windows="code", crop_size=32)
    [features], _, _ = joint(CLIP, [dot], options, store=Store())
    assert len(features) == 1


@pytest.mark.parametrize(
    "options",
    [
        Hypotheses(hypothesis="crop"),
        Hypotheses(windows="books"),
        Hypotheses(most=0),
        Hypotheses(window_share=2.0),
    ],
)
def test_options_that_cannot_be(options):
    with pytest.raises(UsageError):
        check(options)
