"""The text tower against a written-out one and transformers; shared prefixes against none."""

import os
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from reference.clip import enliven, from_transformers, text_tower
from torch.utils.flop_counter import FlopCounterMode

from zerolabel.errors import UsageError
from zerolabel.networks.clip_text import ClipText, ClipTextConfig, random_clip_text

SMALL = ClipTextConfig(vocabulary=50, context=16, dim=24, depth=3, heads=2)
P = 10
START, END = 48, 49


def lively(config=SMALL, *, seed=0):
    return enliven(random_clip_text(config, P, seed=seed), seed=seed)


def draw(*shape, seed=0, dtype=torch.float64):
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def texts(*lengths, context=SMALL.context, seed=0):
    """Random words between start and end, zeros behind."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.zeros(len(lengths), context, dtype=torch.int64)
    for row, length in zip(ids, lengths, strict=True):
        words = torch.randint(0, START, (length,), generator=generator)
        row[: length + 2] = torch.tensor([START, *words, END])
    return ids


def flops(run):
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops() // 2


@pytest.mark.parametrize("activation", ["quick", "gelu"])
@pytest.mark.parametrize("depth", [1, 3])
def test_equals_the_slow_reference(activation, depth):
    net = lively(replace(SMALL, activation=activation, depth=depth)).double()
    ids, ends = texts(0, 14, 3), [1, 15, 4]
    with torch.no_grad():
        found = net(ids)
        assert found.shape == (3, P)
        for row, at, own in zip(ids, ends, found, strict=True):
            expected = text_tower(
                net.token_embedding.weight[row],
                at,
                net.state_dict(),
                depth=depth,
                heads=2,
                activation=activation,
            )
            torch.testing.assert_close(own, expected, atol=1e-10, rtol=0)


def test_what_comes_after_the_end_is_not_computed():
    net = lively()
    ids = texts(2, 5)
    other = ids.clone()
    other[0, 4:] = 7
    with torch.no_grad():
        assert torch.equal(net(ids), net(other))
        assert torch.equal(net(ids), net(ids[:, :7]))
    assert flops(lambda: net(ids)) == flops(lambda: net(ids[:, :7]))


def test_of_the_last_block_one_row_is_finished():
    net = lively(replace(SMALL, depth=1))
    x, at = draw(3, 9, 24, dtype=torch.float32), torch.tensor([8, 2, 5])
    D = SMALL.dim
    least = 3 * 9 * 2 * D * D + 3 * (10 * D * D + D * P)
    attention = 2 * 3 * 9 * D  # not every torch counts fused attention
    assert 0 <= flops(lambda: net.from_vectors(x, at)) - least <= attention


def gradients(net, function, *inputs):
    """Values, and gradients with respect to the inputs and all weights."""
    inputs = [x.clone().requires_grad_() for x in inputs]
    out = function(*inputs)
    upstream = draw(*out.shape, seed=9)
    net.zero_grad()
    (out * upstream).sum().backward()
    weights = {name: p.grad.clone() for name, p in net.named_parameters() if p.grad is not None}
    return out.detach(), [x.grad for x in inputs], weights


@settings(max_examples=60, deadline=None)
@given(
    count=st.integers(1, 5),
    prefix=st.integers(1, 9),
    suffix=st.integers(1, 6),
    depth=st.integers(1, 3),
    heads=st.sampled_from([1, 2, 3]),
    seed=st.integers(0, 99),
)
def test_a_shared_prefix_changes_nothing(count, prefix, suffix, depth, heads, seed):
    net = lively(replace(SMALL, depth=depth, heads=heads), seed=seed).double()
    shared, own = draw(prefix, 24, seed=seed), draw(count, suffix, 24, seed=seed + 1)
    at = torch.randint(0, suffix, (count,), generator=torch.Generator().manual_seed(seed))

    def fast(shared, own):
        return net.after(shared, own, at)

    def plain(shared, own):
        x = torch.cat([shared.expand(count, -1, -1), own], 1)
        return net.from_vectors(x, at + prefix)

    def slow(shared, own):
        state = dict(net.named_parameters())
        return torch.stack(
            [
                text_tower(
                    torch.cat([shared, row]),
                    prefix + int(i),
                    state,
                    depth=depth,
                    heads=heads,
                    activation="quick",
                )
                for row, i in zip(own, at, strict=True)
            ]
        )

    values, grads, weights = gradients(net, slow, shared, own)
    assert grads[0].any()
    for function in (fast, plain):
        found = gradients(net, function, shared, own)
        torch.testing.assert_close(found[0], values, atol=1e-10, rtol=0)
        torch.testing.assert_close(found[1], grads, atol=1e-10, rtol=1e-10)
        assert found[2].keys() == weights.keys()
        for name, value in weights.items():
            torch.testing.assert_close(found[2][name], value, atol=1e-10, rtol=1e-10, msg=name)


def test_single_precision():
    net = lively()
    shared, own = draw(9, 24, dtype=torch.float32), draw(5, 3, 24, dtype=torch.float32)
    at = torch.tensor([2, 0, 1, 2, 2])
    with torch.no_grad():
        found = net.after(shared, own, at)
        plain = net.from_vectors(torch.cat([shared.expand(5, -1, -1), own], 1), at + 9)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, plain, atol=2e-5, rtol=2e-5)


def test_the_prefix_runs_once():
    net = lively()
    D, depth, n, start, own = SMALL.dim, SMALL.depth, 40, 12, 3
    shared, rest = draw(start, D, dtype=torch.float32), draw(n, own, D, dtype=torch.float32)
    spent = flops(lambda: net.after(shared, rest, torch.full((n,), own - 1)))
    tokens = start + n * own
    linear = (depth - 1) * 12 * D * D * tokens
    among = (depth - 1) * 2 * D * n * own * (start + own)
    within = (depth - 1) * 2 * D * start * start  # not every torch counts fused attention
    last = 2 * D * D * tokens + n * (10 * D * D + D * P + 2 * D * (start + own))
    assert 0 <= spent - linear - among - last <= within


def test_too_many_tokens():
    net = lively()
    long = draw(2, 17, 24, dtype=torch.float32)
    at = torch.zeros(2, dtype=torch.int64)
    for run in (
        lambda: net.from_vectors(long, at),
        lambda: net.after(long[0], long[:, :1], at),
        lambda: net(torch.zeros(2, 17, dtype=torch.int64)),
    ):
        with pytest.raises(UsageError, match="at most 16 tokens, found 1[78]"):
            run()


def test_names_of_the_weights():
    names = set(ClipText(replace(SMALL, depth=1), P).state_dict())
    layers = ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")
    expected = {f"blocks.0.{layer}.{kind}" for layer in layers for kind in ("weight", "bias")}
    expected |= {"token_embedding.weight", "positional_embedding", "proj"}
    assert names == expected | {"norm.weight", "norm.bias"}


def test_random_weights_depend_on_the_seed_alone():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first, again, other = (random_clip_text(SMALL, P, seed=s).state_dict() for s in (3, 3, 4))
    assert torch.equal(before, torch.get_rng_state())
    for name, value in first.items():
        assert torch.equal(value, again[name]), name
        assert value.isfinite().all()
    assert not torch.equal(first["proj"], other["proj"])


@pytest.mark.parametrize("depth", [2, 12])
def test_random_weights_tell_words_apart(depth):
    config = ClipTextConfig(vocabulary=300, dim=64, depth=depth, heads=2)
    words = ["sky", "grass", "road", "person", "cat", "dog", "water", "sheep"]
    rows = [[298, *f"a photo of a {word}.".encode(), 299] for word in words]
    ids = torch.zeros(len(rows), 77, dtype=torch.int64)
    for row, text in zip(ids, rows, strict=True):
        row[: len(text)] = torch.tensor(text)
    with torch.no_grad():
        found = random_clip_text(config, 64, seed=0)(ids)
    unit = F.normalize(found, dim=-1)
    cosines = (unit @ unit.T)[~torch.eye(len(unit), dtype=torch.bool)]
    assert cosines.mean() < 0.85
    assert cosines.max() < 0.999
    assert 0.3 < found.std() < 3


@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
@pytest.mark.parametrize("padding", [0, END])
def test_equals_transformers(activation, padding):
    os.environ["HF_HUB_OFFLINE"] = "1"
    transformers = pytest.importorskip("transformers")
    config = transformers.CLIPTextConfig(
        vocab_size=50,
        hidden_size=24,
        intermediate_size=96,
        num_hidden_layers=3,
        num_attention_heads=2,
        max_position_embeddings=16,
        projection_dim=P,
        hidden_act=activation,
        eos_token_id=2,  # as in the published configurations: the highest id is the end
        bos_token_id=START,
    )
    theirs = enliven(transformers.CLIPTextModelWithProjection(config))
    ours = ClipText(replace(SMALL, activation=activation.split("_")[0]), P).eval()
    from_transformers(theirs, ours, tower="text")
    ids = texts(0, 14, 3, 7)
    for row in ids:
        row[row.argmax() + 1 :] = padding
    with torch.no_grad():
        expected = theirs(ids).text_embeds
        torch.testing.assert_close(ours(ids), expected, atol=1e-5, rtol=1e-5)
