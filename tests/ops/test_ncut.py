from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import ncut as plain
from torch.autograd import gradcheck

from zerolabel.errors import UsageError
from zerolabel.ops import ncut
from zerolabel.ops.ncut import Affinity, class_mean_ncut, hard_ncut, soft_ncut, weights

SETTINGS = [
    {},
    {"squared": False},
    {"inclusive": False},
    {"radius": 2, "sigma_value": 40.0, "sigma_place": 1.5},
    {"radius": 1, "inclusive": False},  # nobody but oneself
    {"radius": 9, "sigma_value": 100.0, "squared": False, "inclusive": False},
]
SIZES = [(12, 17), (1, 1), (1, 9), (7, 1), (3, 4), (2, 31)]  # most are smaller than the radius


def photo(*shape, seed=0, dtype=torch.float64):
    """Values 0..255 that differ little between neighbours, so that no weight vanishes."""
    generator = torch.Generator().manual_seed(seed)
    steps = torch.randn(*shape, generator=generator, dtype=torch.float64)
    return (128 + 4 * steps).clamp(0, 255).to(dtype)


def shares(*shape, seed=1, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(*shape, generator=generator, dtype=torch.float64)
    return (2 * scores).softmax(1).to(dtype).requires_grad_()


def both(function, probabilities, *arguments, **options):
    """Values, and the gradient of their sum, the b-th of them times b + 3."""
    values = function(probabilities, *arguments, **options)
    upstream = torch.arange(3, 3 + len(values)).to(values)
    (gradient,) = torch.autograd.grad((values * upstream).sum(), probabilities)
    return values.detach(), gradient


def dense(probabilities, images, **options):
    pairs = zip(probabilities, images, strict=True)
    return torch.stack([plain.soft_ncut(p, plain.pair_weights(x, **options)) for p, x in pairs])


def ours(probabilities, images, **options):
    return soft_ncut(probabilities, weights(images, Affinity(**options)))


def test_equals_the_matrix_in_float32():
    images, p = photo(1, 3, 48, 48, dtype=torch.float32), shares(1, 5, 48, 48, dtype=torch.float32)
    found, expected = both(ours, p, images), both(dense, p, images)
    torch.testing.assert_close(found[0], expected[0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found[1], expected[1], rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("options", SETTINGS)
def test_equals_the_matrix(options, size):
    images, p = photo(2, 3, *size), shares(2, 4, *size)
    expected = both(dense, p, images, **options)
    found = both(ours, p, images, **options)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


@settings(max_examples=50, deadline=None)
@given(
    size=st.tuples(st.integers(1, 14), st.integers(1, 14)),
    bands=st.integers(1, 12),
    classes=st.integers(1, 6),
    block=st.integers(1, 900),
    rows=st.integers(1, 4),
    radius=st.integers(1, 6),
    inclusive=st.booleans(),
    seed=st.integers(0, 99),
)
def test_equals_the_matrix_in_any_block(size, bands, classes, block, rows, radius, inclusive, seed):
    images, p = photo(2, bands, *size, seed=seed), shares(2, classes, *size, seed=seed)
    options = {"radius": radius, "inclusive": inclusive}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ncut, "BLOCK", block)
        patch.setattr(ncut, "ROWS", rows)
        found = both(ours, p, images, **options)
    torch.testing.assert_close(found, both(dense, p, images, **options), rtol=1e-10, atol=1e-12)
    assert (found[0] >= -1e-12).all()
    assert (found[0] <= classes).all()


def test_weights_equal_the_matrix():
    images = photo(2, 4, 6, 11)
    found = weights(images, Affinity(radius=3))
    assert found.maps.shape == (2, 14, 6, 11)
    index = torch.arange(66).reshape(6, 11)
    for b in range(2):
        matrix = torch.eye(66, dtype=torch.float64)
        for (down, right), weight in zip(found.offsets, found.maps[b], strict=True):
            for row in range(6):
                for column in range(11):
                    if row + down < 6 and 0 <= column + right < 11:
                        pair = index[row, column], index[row + down, column + right]
                        matrix[pair] = matrix[pair[::-1]] = weight[row, column]
                    else:
                        assert weight[row, column] == 0
        torch.testing.assert_close(matrix, plain.pair_weights(images[b], radius=3))
        torch.testing.assert_close(found.degree[b].flatten(), matrix.sum(1))


@pytest.mark.parametrize(
    ("radius", "inclusive", "count"), [(5, True, 40), (5, False, 34), (1, True, 2), (1, False, 0)]
)
def test_half_a_disc(radius, inclusive, count):
    offsets = Affinity(radius=radius, inclusive=inclusive).offsets
    around = {(0, 0), *offsets, *((-down, -right) for down, right in offsets)}
    assert len(offsets) == count
    assert len(around) == 2 * count + 1  # no pair twice


@pytest.mark.parametrize("level", [1.0, 0.25, 1e-3])
@pytest.mark.parametrize("K", [1, 2, 64])
def test_equal_probabilities(K, level):
    pairs = weights(photo(2, 3, 20, 33, dtype=torch.float32), Affinity())
    found = soft_ncut(torch.full((2, K, 20, 33), level / K), pairs)
    torch.testing.assert_close(found, torch.full((2,), K - level), rtol=2e-7, atol=2e-6)


def test_two_halves_cost_little():
    images = torch.zeros(1, 1, 40, 40)
    images[..., 20:] = 200
    left = (torch.arange(40) < 20).float().expand(1, 1, 40, 40)
    good = soft_ncut(torch.cat([left, 1 - left], 1), weights(images, Affinity()))
    bad = soft_ncut(torch.cat([left.mT, 1 - left.mT], 1), weights(images, Affinity()))
    flat = soft_ncut(torch.cat([left, 1 - left], 1), weights(0 * images, Affinity()))
    assert good.item() == pytest.approx(0, abs=1e-6)  # values that differ bind nothing
    assert 0.05 < bad.item() < 0.2  # pairs across the boundary only
    assert flat.item() == pytest.approx(bad.item(), rel=0.02)


def test_gradient():
    images, p = photo(2, 2, 5, 8), shares(2, 3, 5, 8)
    assert gradcheck(lambda q: ours(q, images, radius=3), (p,))


def as_one(probabilities, images, **options):
    """Images that are pooled are one graph in which no pair joins two of them."""
    pairs = torch.block_diag(*(plain.pair_weights(x, **options) for x in images))
    return plain.soft_ncut(probabilities.transpose(0, 1), pairs).expand(len(images))


@pytest.mark.parametrize("options", SETTINGS)
def test_pooled_images_are_one_graph(options):
    images, p = photo(3, 2, 6, 7), shares(3, 4, 6, 7)
    found = both(partial(soft_ncut, pooled=True), p, weights(images, Affinity(**options)))
    torch.testing.assert_close(found, both(as_one, p, images, **options), rtol=1e-10, atol=1e-12)


def test_a_class_of_one_image_alone_costs_nothing_if_images_are_pooled():
    pairs = weights(photo(2, 3, 8, 9), Affinity())
    p = torch.zeros(2, 2, 8, 9, dtype=torch.float64)
    p[0, 0] = p[1, 1] = 1
    assert soft_ncut(p, pairs).tolist() == pytest.approx([1, 1])
    assert soft_ncut(p, pairs, pooled=True).tolist() == pytest.approx([0, 0])


def test_a_class_that_is_nowhere():
    images, p = photo(1, 3, 9, 9), shares(1, 4, 9, 9).detach()
    p[:, 2] = 0
    value, gradient = both(ours, p.clone().requires_grad_(), images)
    without, fewer = both(ours, p[:, [0, 1, 3]].clone().requires_grad_(), images)
    torch.testing.assert_close(value, without + 1)
    torch.testing.assert_close(gradient[:, [0, 1, 3]], fewer)
    assert (gradient[:, 2] == 0).all()


@pytest.mark.parametrize("tiny", [1e-45, 1e-41, 1e-38, 1e-30])
def test_a_class_that_is_almost_nowhere(tiny):
    p = torch.zeros(1, 2, 9, 9)
    p[:, 0], p[:, 1, 4, 4] = 1, tiny
    value, gradient = both(ours, p.requires_grad_(), photo(1, 3, 9, 9, dtype=torch.float32))
    assert 0 <= value.item() <= 2
    assert gradient.isfinite().all()


def test_one_class():
    found = ours(torch.ones(1, 1, 8, 8), photo(1, 1, 8, 8, dtype=torch.float32))
    torch.testing.assert_close(found, torch.zeros(1), rtol=0, atol=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_labels_equal_shares_of_one(seed):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 6, (2, 13, 18), generator=generator)  # 6 is nowhere
    pairs = weights(photo(2, 3, 13, 18, seed=seed), Affinity())
    one_hot = torch.nn.functional.one_hot(labels, 7).permute(0, 3, 1, 2).double()
    expected = soft_ncut(one_hot, pairs)
    torch.testing.assert_close(hard_ncut(labels, pairs, K=7), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("cut", [ours, lambda p, x: class_mean_ncut(p, x / 255)])
def test_order_of_classes_and_company_of_images(cut):
    images, p = photo(3, 2, 11, 14), shares(3, 5, 11, 14)
    values, gradient = both(cut, p, images)
    order = torch.tensor([3, 0, 4, 1, 2])
    mixed = p.detach()[:, order].requires_grad_()
    torch.testing.assert_close(both(cut, mixed, images), (values, gradient[:, order]))
    alone = torch.cat([cut(p[b : b + 1], images[b : b + 1]) for b in range(3)])
    torch.testing.assert_close(alone, values)


def test_types_and_layouts():
    images = photo(2, 3, 10, 12, dtype=torch.float32)
    p = shares(2, 4, 10, 12, dtype=torch.float32)
    expected = both(ours, p, images)
    last = p.detach().contiguous(memory_format=torch.channels_last).requires_grad_()
    torch.testing.assert_close(both(ours, last, images), expected)
    small = p.detach().bfloat16().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        values, gradient = both(ours, small, images)
    assert (values.dtype, gradient.dtype) == (torch.float32, torch.bfloat16)
    torch.testing.assert_close(values, expected[0], rtol=0, atol=0.02)
    assert ours(p.detach(), images).grad_fn is None
    assert weights(images.byte(), Affinity()).maps.dtype == torch.float32


@pytest.mark.parametrize("pooled", [False, True])
@pytest.mark.parametrize("options", [{}, {"radius": 2, "sigma_place": 1.0, "sigma_value": 0.3}])
@pytest.mark.parametrize("size", [(15, 22), (1, 6), (3, 3)])
@pytest.mark.parametrize("bands", [1, 3, 9])
def test_class_means_equal_the_loop(bands, size, options, pooled):
    images, p = photo(2, bands, *size) / 255, shares(2, 4, *size)
    images[1] *= 0.3
    found = both(class_mean_ncut, p, images, pooled=pooled, **options)

    def loop(q, x):
        return plain.class_mean_ncut(q, x, pooled=pooled, **options).expand(2)

    torch.testing.assert_close(found, both(loop, p, images), rtol=1e-8, atol=1e-10)
    assert (found[0] >= 0).all()
    assert (found[0] <= 4).all()


def test_class_means_in_float32():
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(2, 3, 40, 30, generator=generator)
    p = shares(2, 7, 40, 30, dtype=torch.float32)
    found, expected = both(class_mean_ncut, p, images), both(plain.class_mean_ncut, p, images)
    torch.testing.assert_close(found[0], expected[0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found[1], expected[1], rtol=1e-3, atol=1e-8)


def test_gradient_of_class_means():
    images, p = photo(2, 2, 4, 5) / 255, shares(2, 3, 4, 5)
    images[:, :, :2] *= 0.2
    assert gradcheck(lambda q: class_mean_ncut(q, images, sigma_value=0.5), (p,))


def test_class_means_of_a_class_that_is_nowhere():
    p = torch.zeros(1, 2, 8, 8)
    p[:, 0] = 1
    value, gradient = both(class_mean_ncut, p.requires_grad_(), torch.rand(1, 3, 8, 8))
    assert value.item() == pytest.approx(1, abs=1e-5)
    assert gradient.isfinite().all()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: Affinity(radius=0), "radius"),
        (lambda: Affinity(sigma_value=0), "sigma_value"),
        (lambda: weights(torch.rand(3, 4, 4), Affinity()), "images"),
        (lambda: ours(torch.rand(1, 2, 4, 5), torch.rand(1, 3, 4, 4)), "probabilities"),
        (lambda: ours(torch.rand(2, 2, 4, 4), torch.rand(1, 3, 4, 4)), "probabilities"),
        (lambda: ours(torch.ones(1, 2, 4, 4).long(), torch.rand(1, 3, 4, 4)), "floating"),
        (lambda: class_mean_ncut(torch.rand(1, 2, 4, 5), torch.rand(1, 3, 4, 4)), "images"),
        (lambda: class_mean_ncut(torch.rand(1, 2, 4, 4), torch.ones(1, 1, 4, 4).byte()), "images"),
        (
            lambda: class_mean_ncut(torch.rand(1, 2, 4, 4), torch.rand(1, 1, 4, 4), sigma_place=0),
            "sigmas",
        ),
    ],
)
def test_errors(wrong, message):
    with pytest.raises(UsageError, match=message):
        wrong()


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (torch.zeros(1, 4, 5).long(), "Expected labels"),
        (torch.full((1, 4, 4), 255), "0..1"),
        (torch.full((1, 4, 4), -1), "0..1"),
    ],
)
def test_errors_of_labels(labels, message):
    with pytest.raises(UsageError, match=message):
        hard_ncut(labels, weights(torch.rand(1, 3, 4, 4), Affinity()), K=2)
