"""Windows over a photo, merged: against one forward, brute force, and mirror images."""

from dataclasses import replace

import pytest
import torch
from torch.nn.functional import interpolate

from zerolabel.errors import UsageError
from zerolabel.networks.mask_transformer import (
    LinearConfig,
    MaskTransformerConfig,
    decoder,
)
from zerolabel.networks.vit import VitConfig, random_vit
from zerolabel.ops.resize import resize
from zerolabel.stages.slide import (
    Slide,
    attentions,
    decide,
    look,
    on_grid,
    probabilities,
    scaled,
)

K, DIM, PATCH = 5, 64, 8


def networks(head="linear"):
    made = LinearConfig(encoder_dim=DIM, classes=K)
    if head == "mask":
        made = MaskTransformerConfig(encoder_dim=DIM, classes=K, depth=1)
    net = random_vit(VitConfig(patch=PATCH, dim=DIM, depth=2, heads=2, grid=4), seed=0)
    with torch.no_grad():
        net.pos_embed.mul_(20)  # so that patches differ
    found = decoder(made, seed=0)
    with torch.no_grad():
        for value in found.parameters():
            value.add_(torch.randn(value.shape, generator=torch.Generator().manual_seed(1)))
    return net.eval(), found.eval()


def prepare(images):
    return images.float() / 64 - 2


def photo(H, W, seed=0):
    small = torch.rand(1, 3, 5, 6, generator=torch.Generator().manual_seed(seed))
    return (interpolate(small, size=(H, W), mode="bilinear")[0] * 255).byte()


def logits_of(image, head="linear", size=None):
    """One forward over a whole photo, upsampled to `size`."""
    net, found = networks(head)
    with torch.no_grad():
        out = found(net(prepare(image[None]), want={"tokens"}).tokens)
    return interpolate(out, size=size or tuple(image.shape[1:]), mode="bilinear")[0]


# --- sizes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "changes", "expected"),
    [
        ((100, 200), {}, (64, 128)),
        ((200, 100), {}, (128, 64)),
        ((30, 50), {}, (64, 106)),
        ((64, 64), {"scale": 0.5}, (48, 48)),  # a window is the least
        ((64, 96), {"scale": 1.5}, (96, 144)),
        ((1, 1), {}, (64, 64)),
        ((10, 10_000), {}, (64, 512)),  # squeezed
    ],
)
def test_the_short_side_decides_the_size(size, changes, expected):
    options = Slide(short=64, window=48, stride=32)
    assert scaled(size, options, **changes) == expected


def test_squashed_photos_are_squares():
    options = Slide(short=64, window=64, stride=64, squash=True)
    assert scaled((10, 300), options) == (64, 64)
    assert scaled((10, 300), options, scale=0.5) == (32, 32)


@pytest.mark.parametrize(
    "changes",
    [{"short": 0}, {"window": 0}, {"stride": 0}, {"stride": 33}, {"batch": 0}, {"scales": ()}]
    + [{"scales": (0.0,)}],
)
def test_options_that_cannot_be(changes):
    with pytest.raises(UsageError, match="Expected s"):
        Slide(**{"short": 32, "window": 32, "stride": 32} | changes)


# --- what is decided -----------------------------------------------------------------------------


@pytest.mark.parametrize("head", ["linear", "mask"])
def test_one_window_over_all_is_one_forward(head):
    image = photo(48, 48)
    options = Slide(short=48, window=48, stride=48)
    said = look(*networks(head), image, options, prepare=prepare)
    assert [s.scores.shape for s in said] == [(1, K, 6, 6)]
    expected = logits_of(image, head)
    assert (decide(said, (48, 48)) == expected.argmax(0)).float().mean() > 0.999
    found = torch.cat([rows for _, rows in probabilities(said, (48, 48), strip=500)], dim=1)
    torch.testing.assert_close(found, expected.softmax(0), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("size", [(48, 72), (61, 50), (33, 33)])
def test_windows_are_averaged_as_by_brute_force(size, batch):
    image = photo(*size)
    options = Slide(short=48, window=36, stride=20, batch=batch)
    said = look(*networks(), image, options, prepare=prepare)
    H, W = scaled(size, options)
    small = resize(image[None], (H, W), mode="bilinear")[0]
    total, count = torch.zeros(K, H, W), torch.zeros(H, W)
    net, head = networks()
    for a, b, c, d in said[0].windows.boxes():
        view = torch.zeros(1, 3, 40, 40)  # padded with zeros, after normalisation
        view[..., :36, :36] = prepare(small[None, :, a:c, b:d])
        with torch.no_grad():
            out = head(net(view, want={"tokens"}).tokens)
        total[:, a:c, b:d] += interpolate(out, size=(40, 40), mode="bilinear")[0, :, :36, :36]
        count[a:c, b:d] += 1
    expected = interpolate((total / count)[None], size=size, mode="bilinear")[0]
    assert (decide(said, size) == expected.argmax(0)).float().mean() > 0.999


def test_scales_and_mirror_images_are_averaged_as_probabilities():
    image = photo(48, 64)
    options = Slide(short=48, window=48, stride=48, scales=(1.0, 2.0), flip=True)
    said = look(*networks(), image, options, prepare=prepare)
    assert [s.flipped for s in said] == [False, True, False, True]
    parts = []
    for s in said:
        one = next(iter(probabilities([s], (48, 64))))[1]
        parts.append(one)
    found = torch.cat([rows for _, rows in probabilities(said, (48, 64), strip=700)], dim=1)
    torch.testing.assert_close(found, torch.stack(parts).mean(0), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(found.sum(0), torch.ones(48, 64))
    assert torch.equal(decide(said, (48, 64)), found.argmax(0))


def test_a_mirrored_photo_gets_the_mirrored_map():
    image = photo(48, 64)
    options = Slide(short=48, window=48, stride=16, flip=True)
    maps = [
        decide(look(*networks(), x, options, prepare=prepare), (48, 64))
        for x in (image, image.flip(2))
    ]
    assert (maps[0] == maps[1].flip(1)).float().mean() > 0.995


def test_the_grid_is_that_of_the_patches():
    image = photo(50, 75)
    options = Slide(short=48, window=36, stride=20, scales=(1.0, 1.5))
    found = on_grid(look(*networks(), image, options, prepare=prepare))
    assert found.shape == (K, 6, 9)
    torch.testing.assert_close(found.sum(0), torch.ones(6, 9))


def test_many_classes_come_in_strips():
    """150 classes at 512 x 683 are 210 MB, which are never there at once."""
    said = look(*networks(), photo(64, 85), Slide(short=64, window=64, stride=64), prepare=prepare)
    wide = [replace(s, scores=s.scores.repeat(1, 30, 1, 1)) for s in said] * 2
    sizes = [rows.numel() for _, rows in probabilities(wide, (512, 683))]
    assert sum(sizes) == 150 * 512 * 683
    assert 4 * max(sizes) < 9e6


# --- looking into it -----------------------------------------------------------------------------


def test_attention_of_the_encoder_and_of_every_class_that_occurs():
    net, head = networks("mask")
    x = prepare(photo(44, 64)[None])
    tokens, parts, maps = attentions(net, head, x, names={0: "road"})
    assert (tokens.shape, parts.shape) == ((6, 8, DIM), (6, 8))
    occurring = parts.flatten().bincount(minlength=K)
    names = [f"decoder, head mean, {'road' if i == 0 else f'category {i}'}" for i in range(K)]
    assert {*maps} == {"encoder, CLS, head mean", *(names[i] for i in occurring.nonzero()[:, 0])}
    assert list(maps)[1] == names[int(occurring.argmax())]
    assert all(m.shape == (6, 8) and m.min() >= 0 and m.sum() <= 1.001 for m in maps.values())


def test_a_linear_decoder_looks_at_nothing():
    _, _, maps = attentions(*networks(), prepare(photo(32, 32)[None]), names={})
    assert list(maps) == ["encoder, CLS, head mean"]
