import zipfile
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from reference import clip_layouts, layouts
from reference.clip_layouts import LAYOUTS, openai, towers_of, transformers
from safetensors.torch import save_file

from zerolabel.backbones import registry, weights
from zerolabel.backbones.clip import SIZES
from zerolabel.backbones.clip_layouts import as_clip, build_clip, convert_clip, infer_clip, is_clip
from zerolabel.errors import WeightsError
from zerolabel.networks.clip_image import ClipImage
from zerolabel.networks.clip_text import ClipText, ClipTextConfig
from zerolabel.networks.vit import VitConfig, vit_config

VIT = as_clip(VitConfig(patch=4, dim=128, depth=2, heads=2, grid=3))
WORDS = ClipTextConfig(vocabulary=514, dim=64, depth=3, heads=1)
IMAGES = torch.randn(2, 3, 12, 20, generator=torch.Generator().manual_seed(1))
TEXTS = torch.tensor([[512, 5, 9, 513, 0, 0], [512, 7, 8, 300, 4, 513]])


def features(image, text):
    net, words = build_clip(image, text)
    found = net(IMAGES, ("dense", "joint", "keys"))
    return found.dense, found.joint, found.keys, words(TEXTS)


@pytest.mark.parametrize("projection", [32, 64, 128])  # square projections show what is transposed
@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda f: f.__name__)
def test_every_layout_holds_the_same_network(layout, projection):
    towers = towers_of(VIT, WORDS, projection)
    state = layout(*towers)
    assert is_clip(state)
    back = convert_clip(state)
    for own, found in zip(towers, back, strict=True):
        assert own.keys() == found.keys()
        assert all(torch.equal(own[name], found[name]) for name in own)
    assert infer_clip(*back) == (VIT, WORDS, projection)
    for own, found in zip(features(*towers), features(*back), strict=True):
        assert torch.equal(own, found)


def test_half_precision_is_read_as_single():
    state = {k: v.half() for k, v in openai(*towers_of(VIT, WORDS, 32)).items()}
    for tower in convert_clip(state):
        assert all(value.dtype == torch.float32 for value in tower.values())
        assert all(value.is_contiguous() for value in tower.values())


@pytest.mark.slow
@pytest.mark.parametrize("in_memory", [True, False])
def test_files_of_transformers_give_what_they_give_there(in_memory, tmp_path):
    theirs = pytest.importorskip("transformers")
    theirs.utils.logging.disable_progress_bar()
    config = theirs.CLIPConfig(
        text_config={
            "vocab_size": 514,
            "hidden_size": 64,
            "intermediate_size": 256,
            "num_hidden_layers": 3,
            "num_attention_heads": 1,
            "bos_token_id": 512,
            "eos_token_id": 513,
        },
        vision_config={
            "hidden_size": 128,
            "intermediate_size": 512,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": 12,
            "patch_size": 4,
        },
        projection_dim=32,
    )
    torch.manual_seed(0)
    model = theirs.CLIPModel(config).eval()
    with torch.no_grad():
        for value in model.parameters():  # their start is too small for a difference to show
            value.normal_(std=0.2)
    model.save_pretrained(tmp_path)
    state = model.state_dict()
    if not in_memory:
        state = weights.load_file(tmp_path / "model.safetensors")
    net, text = build_clip(*convert_clip(state))
    assert (net.config, text.config) == (VIT, WORDS)
    with torch.no_grad():
        for images in (IMAGES[..., :12], IMAGES):
            expected = model(input_ids=TEXTS, pixel_values=images, interpolate_pos_encoding=True)
            found = net(images, ("joint",)).joint
            torch.testing.assert_close(F.normalize(found), expected.image_embeds, atol=1e-5, rtol=0)
            torch.testing.assert_close(
                F.normalize(text(TEXTS)), expected.text_embeds, atol=1e-5, rtol=0
            )
        assert (expected.image_embeds[0] - expected.image_embeds[1]).abs().max() > 0.01


def test_missing_unexpected_and_misshapen_tensors_are_named():
    state = openai(*towers_of(VIT, WORDS, 32))
    del state["visual.ln_pre.bias"]
    state["visual.surprise"] = torch.ones(1)
    with pytest.raises(WeightsError, match=r"image tower.*norm_pre\.bias missing; surprise unexp"):
        build_clip(*convert_clip(state))
    state = transformers(*towers_of(VIT, WORDS, 32))
    state["logit_bias"] = torch.ones(1)  # of SigLIP, another network
    state["text_model.final_layer_norm.bias"] = torch.ones(3)
    with pytest.raises(WeightsError, match=r"text tower.*logit_bias unexp.*norm\.bias of another"):
        build_clip(*convert_clip(state))


def test_a_tower_alone_is_refused():
    state = transformers(*towers_of(VIT, WORDS, 32))
    for tower in ("vision_model", "text_model"):
        alone = {k: v for k, v in state.items() if k.startswith(tower)}
        assert is_clip(alone)
        with pytest.raises(WeightsError, match="not the weights of a CLIP with both towers"):
            infer_clip(*convert_clip(alone))
    with pytest.raises(WeightsError, match="nothing found"):
        infer_clip({}, {})


def test_towers_that_do_not_fit_each_other_are_refused():
    image, _ = towers_of(VIT, WORDS, 32)
    _, text = towers_of(VIT, WORDS, 64)
    with pytest.raises(WeightsError, match=r"proj \(64, 64\) of texts, proj \(128, 32\) of images"):
        infer_clip(image, text)
    _, text = towers_of(VIT, replace(WORDS, dim=96), 32)
    with pytest.raises(WeightsError, match="a multiple of 64 channels"):
        infer_clip(image, text)


def test_a_residual_image_tower_is_refused():
    _, text = towers_of(VIT, WORDS, 32)
    image = {"conv1.weight": torch.ones(64, 3, 3, 3), "layer1.0.conv1.weight": torch.ones(64)}
    state = openai(*towers_of(VIT, WORDS, 32)) | {f"visual.{k}": v for k, v in image.items()}
    with pytest.raises(WeightsError, match="is a residual network"):
        infer_clip(*convert_clip(state))


def test_two_networks_in_one_file_are_refused():
    state = openai(*towers_of(VIT, WORDS, 32))
    with pytest.raises(WeightsError, match="comes twice"):
        convert_clip({**state, **{f"module.{k}": v for k, v in state.items()}})


@pytest.mark.parametrize("layout", layouts.LAYOUTS, ids=lambda f: f.__name__)
def test_other_networks_are_not_taken_for_a_clip(layout):
    config = VitConfig(patch=4, dim=128, depth=2, heads=2, grid=3, layerscale=True)
    assert not is_clip(layout(layouts.weights_of(config), config))


@pytest.mark.parametrize("patch", [14, 16, 32])
@pytest.mark.parametrize("size", SIZES)
def test_the_network_is_told_from_shapes(size, patch):
    arch, depth, (dim, blocks, heads), projection = SIZES[size]
    config = as_clip(replace(vit_config(arch, patch), depth=depth))
    words = ClipTextConfig(dim=dim, depth=blocks, heads=heads)
    with torch.device("meta"):
        towers = ClipImage(config, projection), ClipText(words, projection)
    states = [tower.state_dict() for tower in towers]
    assert infer_clip(*states) == (config, words, projection)


@pytest.mark.parametrize("name", [n for n, e in registry.BACKBONES.items() if e.is_clip])
def test_an_entry_describes_its_network(name):
    item = registry.entry(name)
    arch, depth, (dim, blocks, heads), projection = SIZES["l" if "vitl" in name else "b"]
    config = as_clip(vit_config(arch, item.patch))
    assert (item.arch, config.depth, item.pos_interp) == (arch, depth, config.pos_interp)
    with torch.device("meta"):
        image = ClipImage(config, projection)
        text = ClipText(ClipTextConfig(dim=dim, depth=blocks, heads=heads), projection)
    count = sum(v.numel() for tower in (image, text) for v in tower.state_dict().values())
    assert item.parameters == count
    assert item.gives == registry.VIT_GIVES | {"dense", "joint"}


# Files.


@pytest.mark.parametrize("nest", ["state_dict", "model"])
def test_checkpoints_are_read(nest, tmp_path):
    towers = towers_of(VIT, WORDS, 32)
    torch.save({nest: clip_layouts.in_training(*towers), "epoch": 3}, tmp_path / "clip.pt")
    image, text = convert_clip(weights.load_file(tmp_path / "clip.pt"))
    assert weights.digest(image) == weights.digest(towers[0])
    assert weights.digest(text) == weights.digest(towers[1])


def test_an_archive_with_a_program_is_refused_with_advice(tmp_path):
    path = tmp_path / "ViT-B-16.pt"
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("data.pkl", "constants.pkl", "code/__torch__/x.py", "version"):
            archive.writestr(f"ViT-B-16/{name}", b"")
    with pytest.raises(WeightsError) as caught:
        weights.load_file(path)
    for part in ("TorchScript", "zerolabel models get clip-vitb16", "state dict", "safetensors"):
        assert part in str(caught.value)


def test_a_damaged_archive_is_refused(tmp_path):
    path = tmp_path / "clip.pt"
    torch.save(openai(*towers_of(VIT, WORDS, 32)), path)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(WeightsError, match="damaged"):
        weights.load_file(path)
    path.write_bytes(b"junk" + content[len(content) // 2 :])
    with pytest.raises(WeightsError, match="damaged"):
        weights.load_file(path)


def test_tensors_are_shared_not_copied(tmp_path):
    save_file(openai(*towers_of(VIT, WORDS, 32)), tmp_path / "clip.safetensors")
    image, text = convert_clip(weights.load_file(tmp_path / "clip.safetensors"))
    net, words = build_clip(image, text)
    assert net.blocks[0].attn.qkv.weight.data_ptr() == image["blocks.0.attn.qkv.weight"].data_ptr()
    assert words.proj.data_ptr() == text["proj"].data_ptr()
    assert not any(value.requires_grad for value in (*net.parameters(), *words.parameters()))
    assert not net.training
    assert not words.training
