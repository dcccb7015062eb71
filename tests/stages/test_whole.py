"""A Segmenter as arrays: read from files of either layout, rebuilt without the file."""

import pytest
import torch
from safetensors.torch import save_file

from zerolabel.errors import WeightsError
from zerolabel.networks.mask_transformer import LinearConfig, MaskTransformerConfig, decoder
from zerolabel.networks.vit import VitConfig, random_vit
from zerolabel.stages import whole

DIM, K = 64, 4
HEADS = {
    "linear": LinearConfig(encoder_dim=DIM, classes=K),
    "mask": MaskTransformerConfig(encoder_dim=DIM, classes=K, depth=1),
}


def networks(head, **changes):
    shape = {"patch": 8, "dim": DIM, "depth": 2, "heads": 1, "grid": 3} | changes
    net = random_vit(VitConfig(**shape), seed=0).eval()
    return net, decoder(HEADS[head], seed=0).eval()


def write(path, head):
    """A file in the official layout, with what only those files have."""
    net, found = networks(head, eps=1e-5, pos_interp="bilinear")
    state = {f"encoder.{k}": v for k, v in net.state_dict().items()}
    state |= {f"decoder.{k}": v for k, v in found.state_dict().items()}
    state |= {"encoder.head.weight": torch.zeros(7, DIM), "encoder.head.bias": torch.zeros(7)}
    save_file(state, path)
    return net, found


@pytest.mark.parametrize("head", HEADS)
def test_a_checkpoint_is_rebuilt_from_arrays(head, tmp_path):
    net, found = write(tmp_path / "x.safetensors", head)
    arrays = whole.read(tmp_path / "x.safetensors")
    assert whole.classes(arrays) == K
    x = torch.randn(2, 3, 40, 32, generator=torch.Generator().manual_seed(0))
    encoder, made = whole.rebuild(arrays)
    with torch.no_grad():
        expected = found(net(x, want={"tokens"}).tokens)
        assert torch.equal(made(encoder(x, want={"tokens"}).tokens), expected)
    assert not any(p.requires_grad for p in (*encoder.parameters(), *made.parameters()))


def test_a_layout_keeps_its_rules(tmp_path):
    write(tmp_path / "x.safetensors", "linear")
    arrays = whole.read(tmp_path / "x.safetensors")
    assert whole.rebuild(arrays)[0].config.eps == 1e-5
    arrays["layout"] = torch.tensor(whole.LAYOUTS.index("mmsegmentation"))
    config = whole.rebuild(arrays)[0].config
    assert (config.eps, config.pos_interp) == (1e-6, "size")


def test_what_is_no_segmenter_is_refused(tmp_path):
    save_file({"a": torch.zeros(1)}, tmp_path / "x.safetensors")
    with pytest.raises(WeightsError, match="no"):
        whole.read(tmp_path / "x.safetensors")


@pytest.mark.parametrize("head", HEADS)
def test_a_training_is_rebuilt(head):
    net, found = networks(head)
    arrays = {f"decoder.{k}": v + 1 for k, v in found.state_dict().items()}
    assert whole.classes(arrays) == K
    encoder, made = whole.trained(arrays, net, HEADS[head])
    assert encoder is net  # frozen
    assert all(torch.equal(v, arrays[f"decoder.{k}"]) for k, v in made.state_dict().items())
    arrays |= {f"encoder.{k}": v + 1 for k, v in net.state_dict().items()}
    encoder, _ = whole.trained(arrays, net, HEADS[head])
    assert all(torch.equal(v, arrays[f"encoder.{k}"]) for k, v in encoder.state_dict().items())
    assert not torch.equal(net.cls_token, encoder.cls_token)


def test_colours():
    x = torch.full((1, 3, 2, 2), 255, dtype=torch.uint8)
    assert whole.normalise(x, {}, colours="auto").unique().tolist() == [1]
    assert torch.equal(
        whole.normalise(x, {"encoder.register_tokens": torch.zeros(1)}, colours="auto"),
        whole.normalise(x, {}, colours="imagenet"),
    )
    found = whole.normalise(x, {}, colours="imagenet")[0, :, 0, 0]
    torch.testing.assert_close(found, torch.tensor([2.2489, 2.4286, 2.64]), atol=1e-3, rtol=0)
