"""Principal components as colours: axes, signs, the foreground, and one meaning for all images."""

import numpy as np
import pytest
import torch
from reference import maps as reference

from zerolabel.errors import UsageError
from zerolabel.ops import pca as module
from zerolabel.ops.cluster import principal_axes
from zerolabel.ops.pca import PcaFit, otsu, pca_maps, signed

D = 12


def scene(seed=0, images=2, h=10, w=14):
    """Tokens of a background, and of an object of two parts that lies within; and attention."""
    generator = torch.Generator().manual_seed(seed)
    kinds = torch.eye(3, D) * 4 + 1
    parts = torch.zeros(images, h, w, dtype=torch.int64)
    parts[:, 3:7, 4:8], parts[:, 3:7, 8:10] = 1, 2
    tokens = kinds[parts] + 0.1 * torch.randn(images, h, w, D, generator=generator)
    attention = torch.rand(images, 2, h, w, generator=generator) * 0.2 + (parts > 0)[:, None]
    return tokens, attention, parts


def test_the_foreground_is_the_object():
    tokens, attention, parts = scene()
    _, inside = pca_maps(tokens, attention)
    assert torch.equal(inside, parts > 0)


def test_without_attention_the_border_is_background():
    tokens, _, parts = scene()
    _, inside = pca_maps(tokens)
    assert torch.equal(inside, parts > 0)


def test_attention_that_says_nothing_leaves_it_to_the_border():
    tokens, _, parts = scene()
    noise = 1 + 1e-3 * torch.rand(2, 2, 10, 14, generator=torch.Generator().manual_seed(3))
    for attention in (noise, 2.001 - noise):
        assert torch.equal(pca_maps(tokens, attention)[1], parts > 0)


def test_attention_decides_on_the_side():
    tokens, attention, parts = scene()
    _, inside = pca_maps(tokens, 1.3 - attention)  # it looks at the surroundings
    assert torch.equal(inside, parts == 0)


def test_parts_have_colours_of_their_own_and_the_same_in_all_images():
    tokens, attention, parts = scene()
    colours, _ = pca_maps(tokens, attention)
    assert 0 <= colours.min() <= colours.max() <= 1
    red = {(i, p): colours[i, ..., 0][parts[i] == p].mean() for i in (0, 1) for p in (1, 2)}
    for p in (1, 2):  # the first component; here the others hold noise
        assert (red[0, p] - red[1, p]).abs() < 0.05
    assert (red[0, 1] - red[0, 2]).abs() > 0.8


@pytest.mark.parametrize("axis", [1, 2])
def test_a_flipped_image_has_the_flipped_colours(axis):
    tokens, attention, _ = scene()
    plain, inside = pca_maps(tokens, attention)
    flipped, flipped_inside = pca_maps(tokens.flip(axis), attention.flip(axis + 1))
    assert torch.allclose(flipped.flip(axis), plain, atol=2e-3)  # float32
    assert torch.equal(flipped_inside.flip(axis), inside)


def test_signs_do_not_depend_on_the_solver(monkeypatch):
    tokens, attention, _ = scene()
    expected = pca_maps(tokens, attention)
    eigh = torch.linalg.eigh

    def other_signs(matrix):
        values, axes = eigh(matrix)
        return values, -axes

    monkeypatch.setattr(torch.linalg, "eigh", other_signs)
    for found, wanted in zip(pca_maps(tokens, attention), expected, strict=True):
        assert torch.equal(found, wanted)


def test_axes_are_those_of_all_tokens_at_once():
    tokens, attention, _ = scene(images=5)
    fit = PcaFit()
    for i in (0, 2, 4):  # batches of two, two and one
        fit.add(tokens[i : i + 2], attention[i : i + 2])
    found = fit.finish(foreground=False)
    mean, axes = principal_axes(tokens.flatten(0, 2), 3)
    assert torch.allclose(found.mean, mean, atol=1e-5)
    agreement = (found.axes * axes).sum(0).abs()
    assert torch.allclose(agreement, torch.ones(3), atol=1e-4)
    assert found.maps(tokens)[1].all()


def test_batches_do_not_matter_and_memory_is_bounded(monkeypatch):
    monkeypatch.setattr(module, "SAMPLE", 100)
    tokens, attention, parts = scene(images=6)
    whole, pieces = PcaFit(), PcaFit()
    whole.add(tokens, attention)
    for i in range(6):
        pieces.add(tokens[i : i + 1], attention[i : i + 1])
    assert len(whole._sample) == len(pieces._sample) == 100
    one, other = whole.finish(), pieces.finish()
    assert torch.allclose(one.axis, other.axis, atol=1e-5)
    assert torch.equal(one.maps(tokens)[1], parts > 0)
    assert torch.equal(other.maps(tokens)[1], parts > 0)


def test_the_sample_is_spread_evenly(monkeypatch):
    monkeypatch.setattr(module, "SAMPLE", 200)
    fit = PcaFit()
    places = torch.arange(2000.0).reshape(4, 1, 10, 50)
    for i in range(4):
        fit.add(places[i].reshape(1, 10, 50, 1).repeat(1, 1, 1, 3))
    quarters = torch.histc(fit._sample[:, 0], bins=4, min=0, max=2000)
    assert quarters.sum() == 200
    assert quarters.min() > 30  # of 50; 3 standard deviations are 18
    assert len(fit._sample[:, 0].unique()) == 200


def test_an_image_of_one_colour_has_no_foreground():
    colours, inside = pca_maps(torch.ones(1, 4, 4, D), torch.ones(1, 2, 4, 4))
    assert not inside.any()
    assert torch.isfinite(colours).all()


def test_nothing_and_too_few_channels_are_errors():
    with pytest.raises(UsageError, match="found 0"):
        PcaFit().finish()
    with pytest.raises(UsageError, match="found 2"):
        pca_maps(torch.rand(1, 3, 3, 2))


def test_the_largest_entry_of_an_axis_is_positive():
    axes = torch.tensor([[0.1, -0.9], [-0.8, 0.2]])
    assert torch.equal(signed(axes), axes * torch.tensor([-1.0, -1.0]))
    assert torch.equal(signed(-axes), signed(axes))


def test_otsu_equals_the_search():
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.normal(0, 1, 300), rng.normal(6, 0.5, 60)])
    found = otsu(values)
    edges = np.linspace(values.min(), values.max(), module.BINS + 1)[1:-1]
    expected = reference.otsu(values, edges)
    # between the parts every edge of an empty gap is as good
    assert ((values > found) == (values > expected)).mean() > 0.99
    assert otsu(np.array([3.0, 3.0])) == 3.0
