import pytest
import torch
from torch import nn

from zerolabel.networks.transformer import KEY, QUERY, VALUE, Attention, Block, Mlp, seeded

CPU = torch.device("cpu")
RATE = 0.3


def draw(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def known(attention):
    """Let every value be 1 and what is returned the mixed values."""
    dim = attention.proj.in_features
    with torch.no_grad():
        attention.qkv.weight[2 * dim :] = 0
        attention.qkv.bias[2 * dim :] = 1
        attention.proj.weight.copy_(torch.eye(dim))
        attention.proj.bias.zero_()
    return attention


@pytest.mark.parametrize("bias", [False, True])
def test_projections_one_by_one_are_parts_of_all(bias):
    attention = Attention(8, 2, qkv_bias=bias).double()
    assert ("qkv.bias" in attention.state_dict()) == bias
    x = draw(2, 5, 8)
    together = attention.qkv(x).chunk(3, -1)
    for which in (QUERY, KEY, VALUE):
        torch.testing.assert_close(attention.part(x, which), together[which])


def test_attention_and_its_result_are_dropped():
    attention = known(Attention(4, 2, dropout=RATE).double())
    x = draw(500, 6, 4)
    attention.eval()
    torch.testing.assert_close(attention(x), torch.ones_like(x))  # the weights sum to 1
    attention.train()
    with seeded(0, device=CPU):
        y = attention(x).detach()
    assert abs(float((y == 0).double().mean()) - RATE) < 0.02  # the result
    assert (y != 0).double().mean() > 0.6
    kept = y[y != 0] * (1 - RATE)
    assert kept.std() > 0.2  # the weights: what is left of them does not sum to 1
    assert abs(float(y.mean()) - 1) < 0.03


def test_both_layers_of_the_mlp_are_followed_by_dropout():
    mlp = Mlp(3, 10, dropout=RATE).double()
    with torch.no_grad():
        for value in mlp.parameters():
            value.fill_(0.1)
    x = torch.ones(3000, 3).double()
    expected = mlp.eval()(x).detach()
    mlp.train()
    with seeded(0, device=CPU):
        y = mlp(x).detach()
    assert abs(float((y == 0).double().mean()) - RATE) < 0.02
    assert len(y[y != 0].unique()) > 5  # so many numbers of hidden channels are left
    assert abs(float(y.mean() / expected.mean()) - 1) < 0.03


def test_no_dropout_by_default():
    block, x = Block(8, 2, 16).double(), draw(2, 5, 8)
    assert torch.equal(block.train()(x), block.eval()(x))


def test_dropout_has_no_name_in_a_checkpoint():
    assert set(Block(8, 2, 16, dropout=RATE).state_dict()) == set(Block(8, 2, 16).state_dict())


def test_the_seed_alone_says_what_is_dropped():
    drop, x = nn.Dropout(0.5), torch.ones(100)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    with seeded(1, device=CPU):
        first = drop(x)
        second = drop(x)
    assert torch.equal(before, torch.get_rng_state())
    assert not torch.equal(first, second)
    torch.rand(3)
    with seeded(1, device=CPU):
        assert torch.equal(drop(x), first)
    with seeded(2, device=CPU):
        assert not torch.equal(drop(x), first)


def test_an_error_leaves_the_random_state_as_it_was():
    before = torch.get_rng_state()
    with pytest.raises(ZeroDivisionError), seeded(1, device=CPU):
        torch.rand(1 // 0)
    assert torch.equal(before, torch.get_rng_state())
