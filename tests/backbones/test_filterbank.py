import numpy as np
import pytest
import torch
from reference import filterbank as reference

from zerolabel.backbones import filterbank, load
from zerolabel.backbones.filterbank import Config, FilterBank
from zerolabel.data.synthetic import world
from zerolabel.data.transforms import to_tensor
from zerolabel.errors import DataError, UsageError
from zerolabel.ops.cluster import kmeans
from zerolabel.ops.matching import hungarian

SMALL = Config(atoms=8, patches=2000)


def batch(images=3, size=(48, 64), categories=4, seed=0):
    samples = world(categories, images=images, size=size, seed=seed)
    return torch.stack([to_tensor(sample.load()) for sample in samples])


@pytest.fixture(scope="module")
def bank():
    return FilterBank(SMALL).learn([batch()])


def blocks(bank):
    last = bank.dim - 8
    shares = bank.config.texture, bank.config.colour, bank.config.position
    return zip((0, last, last + 6), (last, last + 6, bank.dim), shares, strict=True)


def test_shapes(bank):
    tokens = bank.encode(batch(2, (50, 71))).tokens
    assert tokens.shape == (2, 6, 8, bank.dim)
    assert tokens.dtype == torch.float32
    assert (bank.stride, bank.gives) == (8, {"tokens"})
    assert load("filterbank", device="cpu").dim == 2 * 48 * 3 + 8


@pytest.mark.parametrize(
    "config", [SMALL, Config(atoms=4, patches=500, texture=3.0, colour=0.5, position=0.0)]
)
def test_tokens_are_centred_and_blocks_have_the_variance_they_were_given(config):
    images = batch(5)
    bank = FilterBank(config).learn([images[:3], images[3:]])
    tokens = bank.encode(images).tokens.flatten(0, 2)
    assert tokens.mean(0).abs().max() < 1e-5
    for start, end, share in blocks(bank):
        variance = tokens[:, start:end].var(0, correction=0).sum()
        assert float(variance) == pytest.approx(share, rel=1e-4, abs=1e-6)


def test_tokens_are_signed_in_every_block(bank):
    tokens = bank.encode(batch()).tokens.flatten(0, 2)
    for start, end, _ in blocks(bank):
        block = tokens[:, start:end]
        assert 0.2 < (block > 0).float().mean() < 0.8
    dots = tokens @ tokens.T
    assert 0.2 < (dots > 0).float().mean() < 0.8


def test_the_same_seed_learns_the_same(bank):
    again = FilterBank(SMALL).learn([batch()])
    assert again.digest == bank.digest
    assert torch.equal(again.encode(batch()).tokens, bank.encode(batch()).tokens)
    other = FilterBank(SMALL).learn([batch()], seed=1)
    assert not torch.equal(other.encode(batch()).tokens, bank.encode(batch()).tokens)


def test_learning_again_forgets_what_was_learned_before(bank):
    other = FilterBank(SMALL).learn([batch(seed=5)]).learn([batch()])
    assert other.digest == bank.digest


def test_what_was_learned_can_be_saved_and_restored(bank):
    copy = FilterBank(SMALL).restore({k: v.clone() for k, v in bank.state().items()})
    assert torch.equal(copy.encode(batch(seed=3)).tokens, bank.encode(batch(seed=3)).tokens)
    assert copy.digest == bank.digest


def test_the_digest_follows_settings_and_what_was_learned(bank):
    other = FilterBank(Config(atoms=8, patches=2000, threshold=0.4))
    learned = FilterBank(SMALL).learn([batch(seed=1)])
    digests = [FilterBank(SMALL).digest, bank.digest, learned.digest, other.digest]
    digests.append(other.restore(bank.state()).digest)
    assert len(set(digests)) == 5
    assert FilterBank(SMALL).digest == digests[0]


@pytest.mark.parametrize("size", [(8, 8), (9, 15), (8, 80), (24, 8)])
@pytest.mark.parametrize("images", [1, 2])
def test_tiny_images(size, images):
    pixels = batch(images, (80, 80))[:, :, : size[0], : size[1]]
    tokens = FilterBank(SMALL).learn([pixels]).encode(pixels).tokens
    assert tokens.shape == (images, size[0] // 8, size[1] // 8, 56)
    assert tokens.isfinite().all()


@pytest.mark.parametrize("grey", [0, 77, 255])
def test_flat_images(grey, bank):
    flat = torch.full((2, 3, 32, 40), grey, dtype=torch.uint8)
    tokens = FilterBank(SMALL).learn([flat]).encode(flat).tokens
    assert tokens.isfinite().all()
    assert tokens[..., :-2].abs().max() < 1e-3  # nothing but position differs
    assert bank.encode(flat).tokens.isfinite().all()


def test_wrong_use_is_explained(bank):
    with pytest.raises(UsageError, match="call learn"):
        FilterBank(SMALL).encode(batch())
    with pytest.raises(UsageError, match=r"gives tokens only, not \['cls'\]"):
        bank.encode(batch(), want={"tokens", "cls"})
    with pytest.raises(UsageError, match="has no CLS token.*--describe pool"):
        bank.within(torch.zeros(5, 56), torch.ones(1, 2, 2, dtype=torch.bool))
    with pytest.raises(UsageError, match="at least one image"):
        FilterBank(SMALL).learn([])
    for size in ((7, 100), (3, 3)):
        thin = torch.zeros(1, 3, *size, dtype=torch.uint8)
        with pytest.raises(DataError, match=f"at least 8x8 pixels, found {size[0]}x{size[1]}"):
            bank.encode(thin)
        with pytest.raises(DataError, match="at least 8x8"):
            FilterBank(SMALL).learn([thin])


def test_texture_equals_whitening_and_comparing_patch_by_patch(monkeypatch):
    drawn, learn = [], filterbank._dictionary
    monkeypatch.setattr(
        filterbank,
        "_dictionary",
        lambda patches, *rest: (drawn.append(patches), learn(patches, *rest))[1],
    )
    config = Config(atoms=5, patches=800, scales=(1, 2, 4))
    bank = FilterBank(config).learn([batch(2)])
    state = bank.state()
    image = batch(1, (32, 40), seed=9)
    tokens = bank.encode(image).tokens[0]
    raw = (tokens / state["scale"] + state["mean"]).numpy()
    for i, scale in enumerate(config.scales):
        mean, whiten = reference.whitening(drawn[i].numpy())
        # Filters are directions times the whitening, which has full rank.
        directions = state[f"filters.{i}"].double().numpy() @ np.linalg.inv(whiten)
        np.testing.assert_allclose(np.linalg.norm(directions, axis=1), 1, atol=1e-3)
        expected = reference.texture(
            image[0].numpy(),
            mean,
            whiten,
            directions,
            scale=scale,
            side=config.patch,
            threshold=config.threshold,
            pool=config.pool,
        )
        found = raw[..., 10 * i : 10 * (i + 1)]
        np.testing.assert_allclose(found, expected, atol=2e-3)
        assert expected.max() > 0.3


def test_colour_and_position_are_what_they_say(bank):
    image = torch.zeros(1, 3, 24, 40, dtype=torch.uint8)
    image[:, 0, :, 16:] = 200  # black, then red from the third cell on
    state = bank.state()
    raw = (bank.encode(image).tokens[0] / state["scale"] + state["mean"])[..., -8:]
    red = 200 / 255
    expected = torch.tensor([red / 3, 2 * red, red])
    torch.testing.assert_close(raw[1, 4, :3], expected, atol=1e-4, rtol=0)
    torch.testing.assert_close(raw[1, 1, :3], torch.zeros(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(raw[1, 2, 3:6], 0.6 * expected, atol=1e-4, rtol=0)  # 5 x 5 around
    torch.testing.assert_close(raw[:, 0, 6], torch.tensor([-1.0, 0, 1]), atol=1e-4, rtol=0)
    row = torch.tensor([-1, -0.5, 0, 0.5, 1])
    torch.testing.assert_close(raw[2, :, 7], row, atol=1e-4, rtol=0)


@pytest.mark.parametrize("colour", [2.0, 0.0])
@pytest.mark.parametrize("seed", range(2))
def test_patches_of_a_planted_world_are_separable(seed, colour):
    samples = world(5, images=8, seed=seed)
    images = torch.stack([to_tensor(sample.load()) for sample in samples])
    config = Config(atoms=16, patches=4000, colour=colour)
    tokens = FilterBank(config).learn([images]).encode(images).tokens
    x = torch.nn.functional.normalize(tokens.flatten(0, 2), dim=1)
    found = kmeans(x, 5).labels.numpy()
    truth = np.concatenate([s.load_label()[4::8, 4::8].ravel() for s in samples])
    counts = np.zeros((5, 6), np.int64)  # the last column: no cluster
    np.add.at(counts, (truth, found), 1)
    right = hungarian(counts)[found] == truth
    assert right.mean() > (0.95 if colour else 0.92)
