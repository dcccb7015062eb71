import networkx
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference.modularity import modularity_loss as plain
from torch.nn.functional import normalize

from zerolabel.errors import UsageError
from zerolabel.ops import modularity
from zerolabel.ops.modularity import modularity_loss


def draw(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def world(*, images=2, patches=23, dim=6, concepts=4, seed=0, dtype=torch.float64):
    x = normalize(draw(images, patches, dim, seed=seed, dtype=dtype), dim=2)
    centres = normalize(draw(images, concepts, dim, seed=seed + 1, dtype=dtype), dim=2)
    return x, (x @ centres.transpose(1, 2)).requires_grad_()


def both(x, s, *, self_loops=True):
    """Loss and gradient here and of the reference."""
    found = []
    for loss in (
        modularity_loss(x, s, self_loops=self_loops),
        plain(x, s, self_loops=self_loops),
    ):
        weights = torch.arange(1, len(loss) + 1, dtype=loss.dtype)
        found.append((loss.detach(), *torch.autograd.grad((loss * weights).sum(), s)))
    return found


@pytest.mark.parametrize("self_loops", [True, False])
@pytest.mark.parametrize("pairs", [1, 50, 10**6])
@pytest.mark.parametrize(
    ("dtype", "close"), [(torch.float64, 1e-10), (torch.float32, 1e-5)], ids=str
)
def test_equals_the_plain_formula(monkeypatch, self_loops, pairs, dtype, close):
    monkeypatch.setattr(modularity, "PAIRS", pairs)
    here, there = both(*world(dtype=dtype), self_loops=self_loops)
    for mine, theirs in zip(here, there, strict=True):
        torch.testing.assert_close(mine, theirs, atol=close, rtol=0)


@given(  # in one dimension all cosines are 1 or -1, and every concept ties
    st.integers(1, 3), st.integers(1, 12), st.integers(2, 5), st.integers(1, 6), st.integers(0, 99)
)
@settings(deadline=None, max_examples=60)
def test_equals_the_plain_formula_at_any_size(images, patches, dim, concepts, seed):
    sizes = {"images": images, "patches": patches, "dim": dim, "concepts": concepts}
    here, there = both(*world(**sizes, seed=seed))
    for mine, theirs in zip(here, there, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-10, rtol=0)


@pytest.mark.parametrize("self_loops", [True, False])
def test_gradient_away_from_ties(self_loops):
    x, s = world(images=2, patches=9)
    assert torch.autograd.gradcheck(
        lambda shares: modularity_loss(x, shares, self_loops=self_loops), (s,)
    )


def test_hard_shares_give_the_modularity_of_the_graph():
    x, _ = world(images=1, patches=15)
    groups = torch.randint(0, 3, (15,), generator=torch.Generator().manual_seed(2))
    s = torch.eye(3, dtype=x.dtype)[groups][None]
    loss = modularity_loss(x, s, self_loops=False)
    edges = (x[0] @ x[0].T).clamp(min=0).fill_diagonal_(0).numpy()
    communities = [set(np.flatnonzero(groups.numpy() == c)) for c in range(3)]
    graph = networkx.from_numpy_array(edges)
    expected = networkx.community.modularity(graph, communities, weight="weight")
    assert -loss.item() == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize("share", [1.0, 0.3])
def test_shares_that_are_all_alike_score_nothing(share):
    x, s = world()
    loss = modularity_loss(x, torch.full_like(s, share))
    torch.testing.assert_close(loss, torch.zeros(2, dtype=loss.dtype), atol=1e-12, rtol=0)


def test_concepts_may_change_places():
    x, s = world()
    loss, other = modularity_loss(x, s), modularity_loss(x, s[..., torch.tensor([2, 0, 3, 1])])
    torch.testing.assert_close(loss, other, atol=1e-12, rtol=0)


def test_concepts_that_are_the_same_move_alike():
    x, s = world(concepts=1)
    twice = s.detach().repeat(1, 1, 2).requires_grad_()
    modularity_loss(x, twice).sum().backward()
    modularity_loss(x, s).sum().backward()
    torch.testing.assert_close(twice.grad, s.grad.repeat(1, 1, 2))


def test_what_is_not_shared_has_no_gradient():
    x, s = world()
    modularity_loss(x, s).sum().backward()
    assert not s.grad[s <= 0].any()
    assert s.grad[s > 0].any()


def test_nothing_alike_at_all():
    x = torch.eye(3, dtype=torch.float64)[None]
    loss = modularity_loss(x, x, self_loops=False)
    assert loss.tolist() == [0.0]


def test_shapes_that_do_not_fit():
    x, s = world()
    with pytest.raises(UsageError, match=r"found \(2, 23, 6\) and \(2, 22, 4\)"):
        modularity_loss(x, s[:, 1:])
