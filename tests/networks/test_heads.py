import pytest
import torch
from torch import nn

from zerolabel.networks.heads import ProjectionHead, reset_head


def head(prototypes=0, seed=0):
    made = ProjectionHead(12, hidden=20, bottleneck=8, prototypes=prototypes)
    reset_head(made, generator=torch.Generator().manual_seed(seed))
    return made


def rows(*shape):
    return torch.randn(*shape, 12, generator=torch.Generator().manual_seed(1))


def test_without_prototypes_it_gives_unit_vectors():
    made, x = head(), rows(3, 5)
    z = x
    for layer in made.mlp:
        z = torch.nn.functional.gelu(z) if isinstance(layer, nn.GELU) else layer(z)
    expected = z / z.norm(dim=-1, keepdim=True)
    torch.testing.assert_close(made(x), expected)
    assert [layer.out_features for layer in made.mlp if isinstance(layer, nn.Linear)] == [20, 20, 8]


def test_prototypes_are_compared_by_cosine():
    made, x = head(prototypes=6), rows(7)
    made.prototypes.data *= torch.arange(1, 7)[:, None]  # their length does not count
    found = made(x)
    z = made.mlp(x)
    for i in range(7):
        for k in range(6):
            cosine = torch.nn.functional.cosine_similarity(z[i], made.prototypes[k], dim=0)
            torch.testing.assert_close(found[i, k], cosine, atol=1e-6, rtol=1e-5)
    assert found.abs().max() <= 1 + 1e-6


@pytest.mark.parametrize("prototypes", [0, 6])
def test_unit_vectors_are_exact_under_mixed_precision(prototypes):
    made = head(prototypes)
    with torch.autocast("cpu", torch.bfloat16):
        found = made(rows(9))
    if not prototypes:
        assert found.dtype == torch.float32
        torch.testing.assert_close(found.norm(dim=-1), torch.ones(9), atol=1e-6, rtol=0)
    torch.testing.assert_close(found.float(), made(rows(9)), atol=0.03, rtol=0)


def test_weights_follow_the_generator():
    first, again, other = (head(prototypes=6, seed=s).state_dict() for s in (0, 0, 1))
    for name, value in first.items():
        assert torch.equal(value, again[name])
        if name.endswith("bias"):
            assert (value == 0).all()
        else:
            assert not torch.equal(value, other[name])
            if name != "prototypes":
                assert 0.01 < value.std() < 0.03  # 0.02, truncated


def test_an_answer_of_zeros_has_a_finite_gradient():
    made = head(prototypes=6)
    nn.init.zeros_(made.mlp[-1].weight)
    made(rows(2)).sum().backward()
    assert all(value.grad.isfinite().all() for value in made.parameters())
