import pytest
import torch
from reference.resnet import forward as slow_forward
from reference.resnet import moco_v1, moco_v2, weights_of

from zerolabel.backbones.crop_encoder import check_crop_encoder, load_crop_encoder
from zerolabel.errors import UsageError, WeightsError
from zerolabel.networks.resnet import ARCHITECTURES, ResNetConfig

SMALL = ResNetConfig("bottleneck", (1, 1, 1, 1), width=4)


def crops(n=3, side=40, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (n, 3, side, side), generator=generator, dtype=torch.uint8)


def saved(path, layout=moco_v2, config=SMALL, seed=0):
    torch.save(layout(weights_of(config, seed)), path)
    return str(path)


@pytest.mark.parametrize("norm", ["imagenet", "suim"])
def test_crops_get_the_mean_of_the_last_map(tmp_path, norm):
    mean, std = {
        "imagenet": ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        "suim": ([0.3, 0.3, 0.2], [0.3, 0.3, 0.2]),
    }[norm]
    images = crops()
    x = (images / 255 - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    expected = slow_forward(x, weights_of(SMALL))["layer4"].mean((2, 3))
    found = load_crop_encoder(saved(tmp_path / "moco.pth"), norm=norm)(images)
    assert found.shape == (3, 128)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.slow
def test_a_published_network_gives_2048_numbers(tmp_path):
    file = saved(tmp_path / "moco.pth", config=ARCHITECTURES["resnet-50"])
    encoder = load_crop_encoder(file, norm="imagenet")
    assert encoder(crops(2, side=64)).shape == (2, 2048)


def test_the_digest_tells_weights_and_normalisation_apart(tmp_path):
    files = [saved(tmp_path / f"{seed}.pth", seed=seed) for seed in (0, 1)]
    copy = saved(tmp_path / "copy.pth", layout=moco_v1)
    made = [(f, n) for f in (*files, copy) for n in ("imagenet", "suim")]
    digests = [load_crop_encoder(file, norm=norm).digest for file, norm in made]
    assert digests[:2] == digests[4:]  # the same network, wherever it lies and however it is named
    assert len(set(digests)) == 4


def test_a_classifier_is_noted_and_a_projection_is_none(tmp_path):
    labelled = {**weights_of(SMALL), "fc.weight": torch.ones(10, 128), "fc.bias": torch.ones(10)}
    torch.save(labelled, tmp_path / "supervised.pth")
    found = load_crop_encoder(str(tmp_path / "supervised.pth"), norm="imagenet")
    assert "supervised.pth comes with a classifier of 10 classes" in found.note
    assert not load_crop_encoder(saved(tmp_path / "moco.pth"), norm="imagenet").note
    body = load_crop_encoder(saved(tmp_path / "body.pth"), norm="imagenet")
    torch.testing.assert_close(found(crops()), body(crops()))


def test_files_that_cannot_be_are_explained(tmp_path):
    with pytest.raises(WeightsError, match=r"crop_weights=.*gone.pth is not a file.*MoCo v2"):
        load_crop_encoder(str(tmp_path / "gone.pth"), norm="imagenet")
    torch.save({"a": torch.ones(2)}, tmp_path / "other.pth")
    with pytest.raises(WeightsError, match="not the weights of a residual network"):
        load_crop_encoder(str(tmp_path / "other.pth"), norm="imagenet")
    with pytest.raises(UsageError, match="crop_norm 'sium'.*Did you mean 'suim'"):
        load_crop_encoder(saved(tmp_path / "moco.pth"), norm="sium")


def test_settings_that_do_not_belong_together_are_refused():
    check_crop_encoder("backbone", "", "imagenet")
    check_crop_encoder("resnet", "moco.pth", "suim")
    with pytest.raises(UsageError, match="crop_encoder 'resnett'.*Did you mean 'resnet'"):
        check_crop_encoder("resnett", "moco.pth", "imagenet")
    with pytest.raises(UsageError, match=r"random weights would tell nothing.*crop_weights=FILE"):
        check_crop_encoder("resnet", "", "imagenet")
    for weights, norm in (("moco.pth", "imagenet"), ("", "suim")):
        with pytest.raises(UsageError, match="crop_encoder=backbone has none"):
            check_crop_encoder("backbone", weights, norm)
