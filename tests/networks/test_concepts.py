import pytest
import torch
from torch import nn
from torch.nn.functional import normalize

from zerolabel.errors import UsageError
from zerolabel.networks.concepts import ConceptConfig, FewToMany, concept_generator
from zerolabel.ops.modularity import modularity_loss

SMALL = {"dim": 24, "concepts": 4, "steps": 3, "heads": 3, "hidden": 40}


def draw(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def randomise(module, seed=0):
    """Weights and biases that all matter."""
    for i, value in enumerate(module.parameters()):
        value.data = 0.3 * draw(*value.shape, seed=seed + i)
    return module


def plain(attention, few, many, key_bias):
    """The same attention as torch has it, with a bias of the keys as well."""
    dim = few.shape[-1]
    torchs = nn.MultiheadAttention(dim, attention.heads, batch_first=True).double()
    layers = attention.query, attention.key, attention.value
    torchs.in_proj_weight.data = torch.cat([layer.weight for layer in layers]).detach()
    biases = attention.query.bias, key_bias, attention.value.bias
    torchs.in_proj_bias.data = torch.cat(biases).detach()
    torchs.out_proj.load_state_dict(attention.proj.state_dict())
    return torchs(few, many, many, need_weights=False)[0]


@pytest.mark.parametrize("patches", [1, 4, 31])
def test_attention_equals_torchs_with_keys_and_values(patches):
    attention = randomise(FewToMany(24, 3).double())
    few, many = draw(2, 4, 24, seed=90), draw(2, patches, 24, seed=91)
    expected = plain(attention, few, many, key_bias=draw(24, seed=92))
    torch.testing.assert_close(attention(few, many), expected, atol=1e-10, rtol=0)


@pytest.mark.parametrize("norm_first", [False, True])
def test_a_step_equals_its_equations(norm_first):
    made = randomise(concept_generator(ConceptConfig(**SMALL, norm_first=norm_first)).double())
    step, few, many = made.steps[0], draw(2, 4, 24, seed=90), draw(2, 9, 24, seed=91)
    no_bias = torch.zeros(24, dtype=few.dtype)

    def part(attention, x, y):
        return plain(attention, x, y, no_bias)

    n1, n2, n3 = step.norms
    if norm_first:
        u = few + part(step.cross, n1(few), many)
        v = u + part(step.mutual, n2(u), n2(u))
        expected = v + step.mlp(n3(v))
    else:
        u = n1(few + part(step.cross, few, many))
        v = n2(u + part(step.mutual, u, u))
        expected = n3(v + step.mlp(v))
    torch.testing.assert_close(step(few, many), expected, atol=1e-10, rtol=0)


def long(x):
    """Rows as long as those that leave a layer norm."""
    return normalize(x, dim=-1) * x.shape[-1] ** 0.5


def test_steps_follow_each_other_and_start_from_rows_of_one_length():
    made, x = concept_generator(ConceptConfig(**SMALL)), draw(2, 9, 24, dtype=torch.float32)
    concepts = long(made.prototypes).expand(2, 4, 24)
    for step in made.steps:
        concepts = step(concepts, long(x))
    torch.testing.assert_close(made(x), concepts)
    made.prototypes.data *= torch.arange(1, 5)[:, None]
    torch.testing.assert_close(made(x), concepts)


@pytest.mark.parametrize("norm_first", [False, True])
def test_the_lengths_of_patches_do_not_matter(norm_first):
    made = concept_generator(ConceptConfig(**SMALL, norm_first=norm_first))
    x = draw(2, 9, 24, dtype=torch.float32)
    lengths = 0.01 + 100 * torch.rand(2, 9, 1, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(made(x * lengths), made(x), rtol=1e-4, atol=1e-5)


def test_patches_of_zeros_give_numbers():
    made = concept_generator(ConceptConfig(**SMALL))
    assert made(torch.zeros(2, 9, 24)).isfinite().all()


def test_shared_steps_have_the_weights_of_one():
    own = concept_generator(ConceptConfig(**SMALL))
    shared = concept_generator(ConceptConfig(**SMALL, share_steps=True))
    assert (len(own.steps), len(shared.steps)) == (3, 1)
    x = draw(1, 9, 24, dtype=torch.float32)
    concepts = long(shared.prototypes)[None]
    for _ in range(3):
        concepts = shared.steps[0](concepts, long(x))
    torch.testing.assert_close(shared(x), concepts)


def test_the_order_of_patches_does_not_matter_and_images_do_not_mix():
    made, x = concept_generator(ConceptConfig(**SMALL)), draw(3, 9, 24, dtype=torch.float32)
    found = made(x)
    torch.testing.assert_close(made(x.flip(1)), found)
    torch.testing.assert_close(made(x[1:2]), found[1:2])


def test_the_seed_fixes_the_weights():
    first, second, other = (
        concept_generator(ConceptConfig(**SMALL), seed=seed).state_dict() for seed in (0, 0, 1)
    )
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["prototypes"], other["prototypes"])


def test_heads_that_do_not_divide_the_channels():
    with pytest.raises(UsageError, match="expected a multiple of 5, found dim 24"):
        ConceptConfig(dim=24, heads=5)


@pytest.mark.parametrize(
    ("dim", "heads"), [(384, 6), (768, 12), (192, 3), (64, 1), (3, 1), (134, 2), (130, 2), (191, 1)]
)
def test_heads_and_hidden_channels_that_are_not_given_fit_the_channels(dim, heads):
    config = ConceptConfig(dim=dim)
    assert (config.heads, config.hidden) == (heads, 4 * dim)
    own = ConceptConfig(dim=dim, heads=1, hidden=7)
    assert (own.heads, own.hidden) == (1, 7)


def test_a_few_steps_of_training_find_planted_groups():
    """Three directions with noise, in other shares in every image: each gets a concept."""
    centres = normalize(draw(3, 24, dtype=torch.float32), dim=1)
    groups = torch.randint(0, 3, (32, 30), generator=torch.Generator().manual_seed(3))
    x = normalize(centres[groups] + 0.1 * draw(32, 30, 24, seed=5, dtype=torch.float32), dim=2)
    made = concept_generator(ConceptConfig(**SMALL))
    optimiser = torch.optim.AdamW(made.parameters(), lr=3e-3)
    for _ in range(60):
        shares = x @ normalize(made(x), dim=2).transpose(1, 2)
        loss = modularity_loss(x, shares).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    best = modularity_loss(x, torch.eye(3)[groups]).mean()
    assert loss < 0.8 * best
    found = shares.argmax(2)
    for mine, truth in zip(found, groups, strict=True):
        pairs = {(int(a), int(b)) for a, b in zip(mine, truth, strict=True)}
        assert len(pairs) == len({b for _, b in pairs})  # every group is one concept
