import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck

from zerolabel.errors import UsageError
from zerolabel.ops import strip_loss
from zerolabel.ops.strip_loss import upsampled_cross_entropy

SIDES = st.integers(1, 9)


def scores(*shape, seed=0, scale=1.0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    x = scale * torch.randn(*shape, generator=generator, dtype=torch.float64)
    return x.to(dtype).requires_grad_()


def truth(*shape, classes, seed=0, ignored=0.2, ignore=255):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, classes, shape, generator=generator)
    labels[torch.rand(shape, generator=generator) < ignored] = ignore
    return labels


def plain(logits, labels, *, ignore=255, cover=None):
    H, W = labels.shape[1:]
    fine = F.interpolate(logits, cover or (H, W), mode="bilinear", align_corners=False)
    return F.cross_entropy(fine[..., :H, :W], labels, ignore_index=ignore)


def both(function, logits, *arguments, **options):
    """Value, and gradient of three times the value."""
    value = function(logits, *arguments, **options)
    (gradient,) = torch.autograd.grad(3 * value, logits)
    return value.detach(), gradient


CASES = [  # batch, classes, patches, pixels, cover
    (2, 5, (3, 4), (12, 16), None),
    (1, 21, (4, 4), (64, 64), None),
    (3, 3, (5, 2), (7, 30), None),  # sides in no proportion
    (2, 4, (3, 5), (22, 37), (24, 40)),  # padded to whole patches
    (1, 2, (1, 1), (6, 5), (8, 8)),
    (2, 6, (8, 7), (8, 7), None),  # nothing to upsample
    (2, 3, (9, 12), (4, 5), None),  # fewer pixels than patches
    (1, 1, (3, 3), (9, 9), None),
]


@pytest.mark.parametrize("strip", [1, 300, strip_loss.ELEMENTS])
@pytest.mark.parametrize(("batch", "classes", "grid", "size", "cover"), CASES)
def test_equals_torch(batch, classes, grid, size, cover, strip):
    logits = scores(batch, classes, *grid)
    labels = truth(batch, *size, classes=classes)
    expected = both(plain, logits, labels, cover=cover)
    found = both(upsampled_cross_entropy, logits, labels, cover=cover, strip=strip)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)


@settings(max_examples=60, deadline=None)
@given(
    grid=st.tuples(SIDES, SIDES),
    size=st.tuples(SIDES, SIDES),
    more=st.tuples(SIDES, SIDES),
    classes=st.integers(1, 6),
    strip=st.integers(1, 400),
    ignored=st.sampled_from([0.0, 0.5, 0.9]),
    seed=st.integers(0, 99),
)
def test_equals_torch_at_any_shape(grid, size, more, classes, strip, ignored, seed):
    logits = scores(2, classes, *grid, seed=seed, scale=5)
    labels = truth(2, *size, classes=classes, seed=seed, ignored=ignored)
    cover = (size[0] + more[0], size[1] + more[1])
    value, gradient = both(upsampled_cross_entropy, logits, labels, cover=cover, strip=strip)
    if (labels == 255).all():
        assert value == 0
        assert (gradient == 0).all()
        return
    expected = both(plain, logits, labels, cover=cover)
    torch.testing.assert_close((value, gradient), expected, rtol=1e-11, atol=1e-13)
    torch.testing.assert_close(gradient.sum(1), torch.zeros_like(gradient[:, 0]))


def test_gradcheck():
    logits = scores(2, 4, 3, 2)
    labels = truth(2, 10, 7, classes=4)
    options = {"cover": (12, 8), "strip": 60}
    assert gradcheck(lambda x: upsampled_cross_entropy(x, labels, **options), (logits,))


def test_float32_is_as_near_as_torch():
    logits, labels = scores(2, 30, 8, 8, scale=4), truth(2, 128, 128, classes=30)
    value, gradient = both(upsampled_cross_entropy, logits, labels)
    single = logits.detach().float().requires_grad_()
    found = both(upsampled_cross_entropy, single, labels)
    assert found[0].dtype == found[1].dtype == torch.float32
    assert abs(found[0] - value) < 1e-5 * value
    assert (found[1] - gradient).abs().max() < 1e-5 * gradient.abs().max()


def test_scores_far_apart_neither_overflow_nor_vanish():
    logits, labels = scores(1, 5, 3, 3, scale=1e4), truth(1, 12, 12, classes=5)
    single = logits.detach().float().requires_grad_()
    found = both(upsampled_cross_entropy, single, labels)
    expected = both(plain, logits, labels)
    torch.testing.assert_close(found[0].double(), expected[0], rtol=1e-5, atol=0)
    assert (found[1] - expected[1]).abs().max() < 1e-2 * expected[1].abs().max()


def test_uint8_labels_are_the_same():
    logits, labels = scores(2, 5, 3, 3), truth(2, 11, 12, classes=5)
    expected = both(upsampled_cross_entropy, logits, labels)
    found = both(upsampled_cross_entropy, logits, labels.byte())
    assert torch.equal(found[0], expected[0])
    assert torch.equal(found[1], expected[1])


def test_patches_among_ignored_pixels_get_no_gradient():
    logits, labels = scores(1, 4, 6, 6), truth(1, 24, 24, classes=4, ignored=0)
    labels[:, :, 12:] = 255
    _, gradient = both(upsampled_cross_entropy, logits, labels, strip=500)
    assert (gradient[..., 4:] == 0).all()  # the bilinear kernel reaches less than one patch
    assert (gradient[..., :3] != 0).all()


@pytest.mark.parametrize("ignore", [-1, 0, 255, 300])
def test_any_value_may_be_ignored(ignore):
    logits, labels = scores(2, 4, 3, 3), truth(2, 9, 9, classes=4, ignore=ignore)
    expected = both(plain, logits, labels, ignore=ignore)
    found = both(upsampled_cross_entropy, logits, labels, ignore=ignore)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)


def test_without_a_label_the_loss_is_zero():
    logits = scores(2, 4, 3, 3)
    value, gradient = both(upsampled_cross_entropy, logits, torch.full((2, 9, 9), 255))
    assert value == 0
    assert (gradient == 0).all()


def test_no_gradient_is_computed_where_none_is_needed(monkeypatch):
    asked = []
    judge = strip_loss._judge
    monkeypatch.setattr(
        strip_loss, "_judge", lambda *a, slope: (asked.append(slope), judge(*a, slope=slope))[1]
    )
    logits, labels = scores(1, 4, 3, 3), truth(1, 9, 9, classes=4)
    trained = upsampled_cross_entropy(logits, labels)
    assert asked == [True]
    assert trained.requires_grad
    with torch.no_grad():
        quiet = upsampled_cross_entropy(logits, labels)
    frozen = upsampled_cross_entropy(logits.detach(), labels)
    assert asked == [True, False, False]
    assert not quiet.requires_grad
    assert not frozen.requires_grad
    assert torch.equal(trained, quiet)
    assert torch.equal(trained, frozen)


def test_autocast_changes_nothing():
    logits, labels = scores(2, 9, 4, 4, dtype=torch.float32), truth(2, 32, 32, classes=9)
    expected = both(upsampled_cross_entropy, logits, labels)
    with torch.autocast("cpu", torch.bfloat16):
        found = both(upsampled_cross_entropy, logits, labels)
    assert found[0].dtype == torch.float32
    assert torch.equal(found[0], expected[0])
    assert torch.equal(found[1], expected[1])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_judged_in_float32(dtype):
    logits, labels = scores(2, 9, 4, 4, dtype=dtype), truth(2, 32, 32, classes=9)
    expected = both(upsampled_cross_entropy, logits.detach().float().requires_grad_(), labels)
    found = both(upsampled_cross_entropy, logits, labels)
    assert torch.equal(found[0], expected[0])
    assert found[1].dtype == dtype
    assert torch.equal(found[1], expected[1].to(dtype))


def test_the_gradient_reaches_what_made_the_scores():
    logits, labels = scores(2, 5, 3, 4), truth(2, 12, 16, classes=5)
    weight = scores(5, 5, seed=1)
    (expected,) = torch.autograd.grad(
        plain(torch.einsum("ck,bkhw->bchw", weight, logits), labels), weight
    )
    mixed = torch.einsum("ck,bkhw->bchw", weight, logits)
    (found,) = torch.autograd.grad(upsampled_cross_entropy(mixed, labels), weight)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)


def test_no_tensor_holds_the_scores_of_all_pixels():
    class Largest(torch.utils._python_dispatch.TorchDispatchMode):
        most = 0

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            result = function(*args, **(kwargs or {}))
            if isinstance(result, torch.Tensor) and result.is_floating_point():
                Largest.most = max(Largest.most, result.numel())
            return result

    logits, labels = scores(2, 10, 4, 4), truth(2, 64, 64, classes=10)
    with Largest():
        upsampled_cross_entropy(logits, labels, strip=5000)
    assert 0 < Largest.most <= 5000


def test_labels_without_a_score_are_named():
    logits, labels = scores(1, 4, 3, 3), truth(1, 9, 9, classes=4)
    labels[0, 0, 0], labels[0, 8, 8] = 4, 7
    with pytest.raises(UsageError, match=r"labels 0\.\.3, or 255 .* found 4, 7\."):
        upsampled_cross_entropy(logits, labels)
    labels[0, 0, 0], labels[0, 8, 8] = 0, -1
    with pytest.raises(UsageError, match="found -1"):
        upsampled_cross_entropy(logits, labels)
    labels = torch.arange(100, dtype=torch.uint8).reshape(1, 10, 10)
    with pytest.raises(UsageError, match="10, 11 and more"):
        upsampled_cross_entropy(logits, labels)
    with pytest.raises(UsageError, match="found 255"):
        upsampled_cross_entropy(logits, torch.full((1, 9, 9), 255), ignore=0)


@pytest.mark.parametrize(
    ("logits", "labels", "options"),
    [
        (scores(4, 3, 3), truth(1, 9, 9, classes=4), {}),
        (scores(1, 4, 3, 3), truth(9, 9, classes=4), {}),
        (scores(1, 4, 3, 3), truth(9, classes=4), {}),
        (scores(2, 4, 3, 3), truth(1, 9, 9, classes=4), {}),
        (scores(1, 4, 3, 3), torch.zeros(1, 9, 9), {}),
        (torch.zeros(1, 4, 3, 3, dtype=torch.int64), truth(1, 9, 9, classes=4), {}),
        (scores(1, 4, 3, 3), truth(1, 9, 9, classes=4), {"cover": (8, 12)}),
    ],
)
def test_shapes_that_do_not_fit_are_refused(logits, labels, options):
    with pytest.raises(UsageError, match=r"[Ll]abels"):
        upsampled_cross_entropy(logits, labels, **options)
