"""The rectifier: equations 1 to 4 at any grid, its choices, and what it reads of names."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import rectification as reference
from torch.nn.functional import normalize

from zerolabel.errors import UsageError
from zerolabel.networks.bias import BiasConfig, prompt_length, rectifier, word_tokens
from zerolabel.networks.clip_text import ClipTextConfig, random_clip_text

P, D, Q, TEXT, SHARED = 6, 8, 5, 16, 4
TOWER = ClipTextConfig(vocabulary=20, context=12, dim=TEXT, depth=2, heads=2)
SOT, EOT = 18, 19


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def made(*, seed=0, **choices):
    config = BiasConfig(dim=P, width=D, words=Q, text_dim=TEXT, shared=SHARED, **choices)
    return rectifier(config, seed=seed, start=draw(TEXT, seed=9))


def world(*, images=2, grid=(3, 5), seed=0):
    dense = normalize(draw(images, *grid, P, seed=seed), dim=3)
    queries = normalize(draw(Q, P, seed=seed + 1), dim=1)
    references = normalize(draw(Q, P, seed=seed + 2), dim=1) / Q**0.5
    return dense, queries, references, draw(*grid, D, seed=seed + 3)


def rectified(net, dense, queries, references, positions):
    return net(dense, queries, references=references, positions=positions)


def zero_bias(net):
    """A rectifier whose space bias is nothing."""
    with torch.no_grad():
        net.space.weight.zero_()
        net.space.bias.zero_()
    return net


def identity(decoder):
    """A decoder that gives back the scores that it gets."""
    with torch.no_grad():
        decoder.conv.weight.zero_()
        decoder.conv.bias.zero_()
        decoder.conv.weight[:, P:, 2, 2] = torch.eye(Q)
        decoder.norm.weight.fill_((1 + decoder.norm.eps) ** 0.5)


# --- equations -----------------------------------------------------------------------------------


@given(st.integers(1, 3), st.integers(1, 6), st.integers(2, 6), st.booleans(), st.integers(0, 50))
@settings(deadline=None, max_examples=30)
def test_equals_the_equations_at_any_grid(images, height, width, training, seed):
    dense, queries, references, positions = world(images=images, grid=(height, width), seed=seed)
    for choices in ({}, {"combine": "add"}, {"decoder": False}):
        net = made(**choices).train(training)
        found = rectified(net, dense, queries, references, positions)
        expected = reference.rectified(net, dense, queries, references, positions)
        assert found.shape == (images, Q, height, width)
        torch.testing.assert_close(found, expected, atol=2e-5, rtol=0)


@pytest.mark.parametrize("kind", ["independent", "joint"])
@pytest.mark.parametrize("grid", [(2, 7), (6, 3)])
def test_shapes_on_grids_that_are_not_square(kind, grid):
    net = made(kind=kind, hidden=(4, 3))
    dense, queries, references, positions = world(grid=grid)
    bias = net.bias(positions, references, dense=dense)
    assert bias.shape == ((1 if kind == "independent" else 2), Q, *grid)
    assert rectified(net, dense, queries, references, positions).shape == (2, Q, *grid)


def test_no_bias_and_an_identity_for_a_decoder_are_maskclip():
    dense, queries, references, positions = world()
    plain = torch.einsum("bhwp,qp->bqhw", dense, queries)
    for choices in ({}, {"combine": "add"}, {"decoder": False}):
        net = zero_bias(made(**choices)).eval()
        if net.decoder is not None:
            identity(net.decoder)
        found = rectified(net, dense, queries, references, positions)
        torch.testing.assert_close(found, plain, atol=1e-6, rtol=0)


def test_adding_and_subtracting_differ_by_twice_the_bias():
    world_ = world()
    add, subtract = (
        rectified(made(combine=how, decoder=False), *world_) for how in ("add", "subtract")
    )
    bias = made().bias(world_[3], world_[2])
    torch.testing.assert_close(add - subtract, (2 * bias).expand_as(add), atol=1e-6, rtol=0)


def test_the_independent_bias_knows_the_place_and_not_the_image():
    net = made(decoder=False)
    dense, queries, references, positions = world()
    bias = net.bias(positions, references)
    assert torch.equal(bias, net.bias(positions, references, dense=dense))
    same = net.bias(positions[:1, :1].expand_as(positions), references)
    assert same.flatten(2).std(2).max() < 1e-6 < bias.flatten(2).std(2).min()


def test_the_joint_bias_is_that_of_classes_and_of_space():
    net = made(kind="joint", hidden=(4, 3), decoder=False).eval()
    dense, queries, references, positions = world()
    x = positions.permute(2, 0, 1)[None]
    space = net.space(x)
    assert (space >= 0).all()
    assert [layer.out_channels for layer in list(net.space)[::3]] == [4, 3, Q]
    classes = torch.einsum("bhwp,qp->bqhw", dense, references)
    torch.testing.assert_close(net.bias(positions, references, dense=dense), classes + space)
    found = rectified(net, dense, queries, references, positions)
    plain = torch.einsum("bhwp,qp->bqhw", dense, queries)
    torch.testing.assert_close(found, plain - classes - space)
    with pytest.raises(UsageError, match="pass `dense`"):
        net.bias(positions, references)


# --- what reads names ----------------------------------------------------------------------------


def names():
    """Names of one, two and one tokens, tokenised in a context of 12."""
    ids = torch.zeros(3, 12, dtype=torch.int64)
    for row, tokens in zip(ids, ([3], [4, 5], [6]), strict=True):
        row[: len(tokens) + 2] = torch.tensor([SOT, *tokens, EOT])
    return ids


def read(net, tower):
    ids, at = word_tokens(names())
    parts = {"sot": tower.embed(torch.tensor(SOT)), "suffix": tower.embed(ids), "at": at}
    return parts, net.references(tower, **parts)


def test_references_are_whole_texts_with_learned_vectors_before_the_names():
    tower, net = random_clip_text(TOWER, P, seed=0), made()
    torch.nn.init.normal_(net.prompt, generator=torch.Generator().manual_seed(1))
    parts, found = read(net, tower)
    before = torch.cat([parts["sot"][None], net.prompt]).expand(3, -1, -1)
    texts = torch.cat([before, parts["suffix"]], 1)
    expected = tower.from_vectors(texts, parts["at"] + 1 + SHARED)
    torch.testing.assert_close(found, expected / expected.norm(), atol=1e-5, rtol=0)
    assert found.norm().item() == pytest.approx(1, abs=1e-5)
    assert found.std(0).min() > 1e-4  # names differ


def test_references_may_have_unit_rows():
    tower = random_clip_text(TOWER, P, seed=0)
    _, rows = read(made(norm="rows"), tower)
    _, whole = read(made(), tower)
    torch.testing.assert_close(rows.norm(dim=1), torch.ones(3))
    torch.testing.assert_close(rows, normalize(whole, dim=1))


def test_learned_queries_have_vectors_of_their_own():
    tower, net = random_clip_text(TOWER, P, seed=0), made(query="learned", norm="rows")
    parts, references = read(net, tower)
    queries = net.queries(tower, **parts)
    torch.testing.assert_close(queries, references)  # both start with the same vectors
    with torch.no_grad():
        net.query_prompt[0] += draw(TEXT)
    assert not torch.allclose(net.queries(tower, **parts), references)
    with pytest.raises(UsageError, match="The queries are fixed"):
        made().queries(tower, **parts)


def test_the_gradient_reaches_everything_that_learns():
    tower = random_clip_text(TOWER, P, seed=0).requires_grad_(False)
    for choices in ({}, {"kind": "joint", "hidden": (4, 3)}, {"query": "learned"}):
        config = BiasConfig(dim=P, width=D, words=3, text_dim=TEXT, shared=SHARED, **choices)
        net = rectifier(config, seed=0, start=draw(TEXT))
        parts, references = read(net, tower)
        dense, queries, _, positions = world()
        queries = net.queries(tower, **parts) if net.query_prompt is not None else queries[:3]
        out = net(dense, queries, references=references, positions=positions)
        (out * draw(*out.shape, seed=8)).sum().backward()
        silent = [n for n, p in net.named_parameters() if p.grad is None or not p.grad.any()]
        assert silent == []


# --- token ids -----------------------------------------------------------------------------------


def test_names_and_their_ends_without_the_start():
    ids, at = word_tokens(names())
    assert ids.tolist() == [[3, EOT, 0], [4, 5, EOT], [6, EOT, 0]]
    assert at.tolist() == [1, 2, 1]


@given(st.lists(st.integers(1, 9), min_size=1, max_size=5))
def test_the_end_is_where_it_is_read(lengths):
    ids = torch.zeros(len(lengths), 12, dtype=torch.int64)
    for row, length in zip(ids, lengths, strict=True):
        row[: length + 2] = torch.tensor([SOT, *range(1, length + 1), EOT])
    found, at = word_tokens(ids)
    assert found.shape == (len(lengths), max(lengths) + 1)
    assert (found[torch.arange(len(found)), at] == EOT).all()
    assert at.tolist() == lengths
    assert prompt_length(found.shape[1], context=12) == 12 - 1 - found.shape[1]


@pytest.mark.parametrize("ids", [[[0, 0, 0]], [[SOT, 3, EOT], [SOT, 3, 4]]])
def test_names_without_an_end(ids):
    with pytest.raises(UsageError, match="has no end of text"):
        word_tokens(torch.tensor(ids))


@pytest.mark.parametrize(("suffix", "length"), [(2, 73), (3, 73), (4, 72), (10, 66), (75, 1)])
def test_the_vectors_make_room_for_the_longest_name(suffix, length):
    assert prompt_length(suffix) == length


def test_names_that_are_too_long():
    assert prompt_length(3, paper=True) == 73
    with pytest.raises(UsageError, match="room for names of 2 tokens; the longest has 3"):
        prompt_length(4, paper=True)
    with pytest.raises(UsageError, match="at most 74 tokens; found 75"):
        prompt_length(76)


# --- building ------------------------------------------------------------------------------------


def test_the_seed_alone_decides_the_weights():
    state = torch.get_rng_state()
    one, again, other = (made(seed=seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not torch.equal(one["decoder.conv.weight"], other["decoder.conv.weight"])
    assert all(value.isfinite().all() for value in one.values())


def test_how_weights_start():
    config = BiasConfig(dim=64, width=48, words=20, text_dim=TEXT)
    net = rectifier(config, start=draw(TEXT))
    assert net.prompt.shape == (73, TEXT)
    assert (net.prompt == draw(TEXT)).all()
    deviation = net.decoder.conv.weight.std().item()
    assert deviation == pytest.approx((2 / (20 * 25)) ** 0.5, rel=0.02)  # Kaiming, fan-out
    assert net.space.weight.abs().max() <= 48**-0.5
    assert net.decoder.norm.running_var.eq(1).all()
    assert not rectifier(config).prompt.any()


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"kind": "join"}, "Did you mean 'joint'"),
        ({"combine": "minus"}, "Unknown choice of combine"),
        ({"query": "fix"}, "Did you mean 'fixed'"),
        ({"norm": "row"}, "Did you mean 'rows'"),
        ({"hidden": (0, 3)}, "1 or more"),
    ],
)
def test_choices_that_are_none(choices, message):
    with pytest.raises(UsageError, match=message):
        made(**choices)
