from dataclasses import replace

import pytest
import torch
from reference.layouts import LAYOUTS, timm, weights_of
from safetensors.torch import save_file

from zerolabel.backbones import registry, weights
from zerolabel.backbones.layouts import build, convert, infer_config
from zerolabel.errors import UsageError, WeightsError
from zerolabel.networks.vit import ARCHITECTURES, ViT, VitConfig, vit_config

TINY = VitConfig(patch=4, dim=128, depth=2, heads=2, grid=3)
V2 = replace(TINY, layerscale=True)
REG = replace(V2, registers=4, pos_interp="size-antialias")


@pytest.mark.parametrize("config", [TINY, V2, REG], ids=["dino", "dinov2", "dinov2-reg"])
@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda f: f.__name__)
def test_every_layout_comes_back_to_the_original_names(layout, config):
    state = weights_of(config)
    back = convert(layout(state, config))
    if layout is timm and config.registers:  # CLS and its position are one there
        assert torch.equal(back["pos_embed"][:, 1:], state["pos_embed"][:, 1:])
        cls = state.pop("cls_token") + state.pop("pos_embed")[:, :1]
        torch.testing.assert_close(back.pop("cls_token") + back.pop("pos_embed")[:, :1], cls)
    else:
        assert infer_config(back) == config
        assert weights.digest(back) == weights.digest(state)
    assert back.keys() == state.keys()
    for name, value in state.items():
        assert torch.equal(back[name], value), name


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ViT", "Dinov2", "Dinov2WithRegisters"])
def test_files_of_transformers_are_read(kind, tmp_path, monkeypatch):
    transformers = pytest.importorskip("transformers")
    transformers.utils.logging.disable_progress_bar()
    sizes = {"hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}
    extra = {"intermediate_size": 512} if kind == "ViT" else {}
    config = getattr(transformers, f"{kind}Config")(**sizes, **extra, image_size=12, patch_size=4)
    theirs = getattr(transformers, f"{kind}Model")(config)
    theirs.save_pretrained(tmp_path)
    on_disk = convert(weights.load_file(tmp_path / "model.safetensors"))
    in_memory = convert(theirs.state_dict())
    assert weights.digest(on_disk) == weights.digest(in_memory)
    build(on_disk)


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("patch", [8, 14, 16])
def test_the_network_is_told_from_shapes(arch, patch):
    config = replace(vit_config(arch, patch, grid=5), layerscale=True, mlp_ratio=3.0)
    with torch.device("meta"):
        state = ViT(config).state_dict()
    assert infer_config(state) == config


@pytest.mark.parametrize("patch", [4, 8])
@pytest.mark.parametrize("arch", ["vit-nano", "vit-mini"])
def test_a_trained_network_of_our_own_comes_back(arch, patch, tmp_path):
    config = vit_config(arch, patch, grid=6, conv_stem=True)
    state = weights_of(config)
    path = tmp_path / "backbone.safetensors"
    save_file(state, path)
    back = convert(weights.load_file(path))
    assert back.keys() == state.keys()
    assert infer_config(back) == config
    assert config.pos_interp == "size"
    net, other = build(back).eval(), ViT(config).eval()
    other.load_state_dict(state)
    x = torch.randn(2, 3, 3 * patch, 7 * patch + 1, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for own, expected in zip(net.forward_all(x), other.forward_all(x), strict=True):
            assert torch.equal(own, expected)
    torn = {k: v for k, v in state.items() if "stages.1." not in k}
    with pytest.raises(WeightsError, match=r"patch_embed\.stages"):
        build(convert(torn))


def test_half_precision_is_read_as_single():
    state = {k: v.half() for k, v in weights_of(TINY).items()}
    assert all(v.dtype == torch.float32 for v in convert(state).values())


def test_missing_unexpected_and_misshapen_tensors_are_named():
    state = weights_of(TINY)
    del state["blocks.1.mlp.fc2.bias"]
    state["surprise"] = torch.ones(1)
    state["norm.weight"] = torch.ones(7)
    with pytest.raises(WeightsError) as caught:
        build(convert(state))
    message = str(caught.value)
    assert "blocks.1.mlp.fc2.bias missing" in message
    assert "surprise unexpected" in message
    assert "norm.weight of another shape" in message


def test_at_most_three_names_are_told():
    state = {**weights_of(TINY), **{f"extra{i}": torch.ones(1) for i in range(9)}}
    with pytest.raises(WeightsError, match="extra0, extra1, extra2 and 6 more unexpected"):
        build(convert(state))


def test_other_networks_are_refused():
    with pytest.raises(WeightsError, match="not the weights of a DINO"):
        infer_config({"conv1.weight": torch.ones(64, 3, 7, 7)})
    with pytest.raises(WeightsError, match=r"patch_embed.proj.weight \(128, 1, 4, 4\)"):
        infer_config({**weights_of(TINY), "patch_embed.proj.weight": torch.ones(128, 1, 4, 4)})


def test_two_networks_in_one_file_are_refused():
    state = weights_of(TINY)
    with pytest.raises(WeightsError, match="comes twice"):
        convert({**state, **{f"module.{k}": v for k, v in state.items()}})


# The registry against the networks it describes.


@pytest.mark.parametrize(
    "name", [n for n, e in registry.BACKBONES.items() if e.repo and not e.is_clip]
)
def test_an_entry_describes_its_network(name):
    item = registry.entry(name)
    second = name.startswith("dinov2")
    config = replace(
        vit_config(item.arch, item.patch, grid=37 if second else None),
        layerscale=second,
        registers=item.registers,
        pos_interp=item.pos_interp,
    )
    with torch.device("meta"):
        state = ViT(config).state_dict()
    assert item.parameters == sum(v.numel() for v in state.values())
    # The rule follows from the weights, so one digest means one set of features.
    assert infer_config(state).pos_interp == item.pos_interp


def test_the_registry_is_keyed_by_name():
    assert all(key == item.name for key, item in registry.BACKBONES.items())
    assert "filterbank" not in registry.giving("attention")
    assert set(registry.giving("tokens")) == set(registry.BACKBONES)
    assert registry.giving("nonsense") == []
    with pytest.raises(UsageError, match="Did you mean 'dino-vits16'"):
        registry.entry("dino-vits15")
