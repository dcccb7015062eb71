"""The names that the same vision transformer has in different files, turned into the original ones.

Read are the original DINO and DINOv2 checkpoints (also with the prefixes of training wrappers),
ViTModel, Dinov2Model and Dinov2WithRegistersModel of transformers (names on disk and in version 4,
and the in-memory names of version 5), and timm.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping

import torch
from torch import Tensor, nn

from zerolabel.errors import WeightsError
from zerolabel.networks.vit import HEAD_DIM, ViT, VitConfig

PREFIXES = re.compile(r"^((module|backbone|model|vit|dinov2|dinov2_with_registers)\.)+")
UNUSED = re.compile(r"^((head|dino_head|ibot_head|pooler|classifier)\.|(embeddings\.)?mask_token$)")

RENAMES = tuple(
    (re.compile(pattern), name)
    for pattern, name in (
        # DINOv2 trained in chunks: blocks.<chunk>.<i>, where i already counts through all chunks
        (r"^blocks\.\d+\.(?=\d+\.)", "blocks."),
        # timm
        (r"^reg_token$", "register_tokens"),
        # transformers
        (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
        (r"^embeddings\.position_embeddings$", "pos_embed"),
        (r"^embeddings\.", ""),
        (r"^layernorm\.", "norm."),
        (r"^(encoder\.)?layers?\.(?=\d)", "blocks."),
        (r"\.layernorm_before\.", ".norm1."),
        (r"\.layernorm_after\.", ".norm2."),
        (r"\.attention\.(attention\.)?([qkv])(uery|ey|alue|_proj)\.", r".attn.\2."),
        (r"\.attention\.(output\.dense|o_proj)\.", ".attn.proj."),
        (r"\.intermediate\.dense\.", ".mlp.fc1."),
        (r"\.output\.dense\.", ".mlp.fc2."),
        (r"\.layer_scale([12])\.lambda1$", r".ls\1.gamma"),
    )
)


def convert(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the tensors of a file to the original names of DINO and DINOv2.

    Args:
        state: tensors by the names of any known layout.

    Returns:
        float32 tensors by the names that `ViT` uses, heads and mask token left out. A name of an
        unknown layout is kept as it is, and `build` complains of it.

    Raises:
        WeightsError: two tensors of the file would get the same name.
    """
    named = renamed(state, prefixes=PREFIXES, unused=UNUSED, renames=RENAMES)
    out = {name: value.float() for name, value in once(named).items()}
    join_qkv(out)
    _give_cls_a_position(out)
    return out


def renamed(
    state: Mapping[str, Tensor],
    *,
    prefixes: re.Pattern[str],
    unused: re.Pattern[str],
    renames: Iterable[tuple[re.Pattern[str], str]],
) -> Iterator[tuple[str, str, Tensor]]:
    """Rename the tensors of a file, and leave some out.

    Args:
        state: tensors by the names of any known layout.
        prefixes: what is taken off every name.
        unused: matches names, without their prefix, that are left out.
        renames: patterns and what takes their place, one after another.

    Yields:
        The name in the file, the new one, and the tensor.
    """
    for key, value in state.items():
        name = prefixes.sub("", key)
        if unused.match(name):
            continue
        for pattern, replacement in renames:
            name = pattern.sub(replacement, name)
        yield key, name, value


def once(named: Iterable[tuple[str, str, Tensor]]) -> dict[str, Tensor]:
    """Collect tensors by their new names.

    Args:
        named: what `renamed` yields.

    Returns:
        Tensors by name.

    Raises:
        WeightsError: two tensors of the file would get the same name.
    """
    out: dict[str, Tensor] = {}
    for key, name, value in named:
        if name in out:
            raise WeightsError(
                f"Two networks in one file: {name} comes twice, the second time as {key}. "
                "Save the tensors of one network alone and pass that file."
            )
        out[name] = value
    return out


def infer_config(state: Mapping[str, Tensor]) -> VitConfig:
    """Tell the network from the shapes of its tensors.

    Args:
        state: what `convert` returned.

    Returns:
        The configuration; 64 channels per head and the position rule of the family, as in every
        published DINO and DINOv2 network.

    Raises:
        WeightsError: these are no tensors of such a network.
    """
    needed = ("patch_embed.proj.weight", "pos_embed", "blocks.0.mlp.fc1.weight")
    lacking = [name for name in needed if name not in state]
    if lacking:
        raise WeightsError(
            f"These are not the weights of a DINO or DINOv2 vision transformer: {some(lacking)} "
            f"expected, {some(state)} found. Pass an original, transformers or timm file."
        )
    patch_shape, pos_shape, fc1_shape = (tuple(state[name].shape) for name in needed)
    dim = patch_shape[0]
    stages = {int(m[1]) for name in state if (m := re.match(r"patch_embed\.stages\.(\d+)\.", name))}
    if stages:  # this project's own networks: a convolutional stem, each stage of stride 2
        patch_shape = (dim, 3, 2 ** len(stages), 2 ** len(stages))
    grid = math.isqrt(max(pos_shape[-2] - 1, 0)) if len(pos_shape) == 3 else 0
    known = len(patch_shape) == 4 and patch_shape[1] == 3 and patch_shape[2] == patch_shape[3]
    if not known or dim % HEAD_DIM or pos_shape != (1, 1 + grid**2, dim):
        raise WeightsError(
            "Expected square patches of RGB images, a multiple of 64 channels and a square grid of "
            f"positions; found patch_embed.proj.weight {patch_shape}, pos_embed {pos_shape}."
        )
    blocks = {int(m[1]) for name in state if (m := re.match(r"blocks\.(\d+)\.", name))}
    registers = state["register_tokens"].shape[1] if "register_tokens" in state else 0
    return VitConfig(
        patch=patch_shape[-1],
        dim=dim,
        depth=1 + max(blocks),
        heads=dim // HEAD_DIM,
        grid=grid,
        layerscale="blocks.0.ls1.gamma" in state,
        registers=registers,
        pos_interp="size-antialias" if registers else "size" if stages else "dino",
        mlp_ratio=fc1_shape[0] / dim,
        conv_stem=bool(stages),
    )


def build(state: Mapping[str, Tensor], config: VitConfig | None = None) -> ViT:
    """Build the network that holds these weights, frozen and in evaluation mode.

    Args:
        state: what `convert` returned; the network shares its memory.
        config: what to build; inferred from the shapes by default.

    Returns:
        The network on the CPU.

    Raises:
        WeightsError: a tensor is missing, unexpected or of another shape.
    """
    with torch.device("meta"):  # no memory and no random numbers for weights about to be replaced
        net = ViT(config or infer_config(state))
    load_exactly(net, state, what=str(net.config))
    return net.eval().requires_grad_(False)


def load_exactly(net: nn.Module, state: Mapping[str, Tensor], *, what: str) -> None:
    """Put weights into a network in place of its own, all of them and no others.

    Args:
        net: of any device; changed in place, and shares the memory of `state` afterwards.
        state: tensors by the network's names.
        what: the network, for the message.

    Raises:
        WeightsError: a tensor is missing, unexpected or of another shape.
    """
    expected = {name: tuple(value.shape) for name, value in net.state_dict().items()}
    found = {name: tuple(value.shape) for name, value in state.items()}
    complaints = [
        f"{some(names)} {fault}"
        for fault, names in (
            ("missing", expected.keys() - found.keys()),
            ("unexpected", found.keys() - expected.keys()),
            ("of another shape", {n for n in expected if found.get(n, expected[n]) != expected[n]}),
        )
        if names
    ]
    if complaints:
        raise WeightsError(f"The weights do not fit {what}: {'; '.join(complaints)}.")
    net.load_state_dict(dict(state), assign=True)


def some(names: Iterable[str]) -> str:
    """Name the first three."""
    ordered = sorted(names)
    more = f" and {len(ordered) - 3} more" if len(ordered) > 3 else ""
    return ", ".join(ordered[:3]) + more


def join_qkv(state: dict[str, Tensor]) -> None:
    """Concatenate separate queries, keys and values, in place."""
    for name in [n for n in state if ".attn.q." in n]:
        parts = [name.replace(".attn.q.", f".attn.{part}.") for part in "qkv"]
        if all(part in state for part in parts):
            joined = torch.cat([state.pop(part) for part in parts])
            state[name.replace(".attn.q.", ".attn.qkv.")] = joined


def _give_cls_a_position(state: dict[str, Tensor]) -> None:
    """Add the CLS position that timm's files with registers have merged into the CLS token."""
    pos = state.get("pos_embed")
    if pos is not None and pos.ndim == 3 and math.isqrt(pos.shape[1]) ** 2 == pos.shape[1]:
        state["pos_embed"] = torch.cat([torch.zeros_like(pos[:, :1]), pos], dim=1)
