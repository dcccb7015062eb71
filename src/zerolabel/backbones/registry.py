"""Every backbone by name: where its weights come from, under which licence, and what it gives.

Facts only: nothing here imports torch, touches the network or reads a file.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from zerolabel.errors import unknown_name

if TYPE_CHECKING:
    from zerolabel.ops.position import PosInterp

Colour = tuple[float, float, float]

IMAGENET_MEAN: Colour = (0.485, 0.456, 0.406)
IMAGENET_STD: Colour = (0.229, 0.224, 0.225)
CLIP_MEAN: Colour = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD: Colour = (0.26862954, 0.26130258, 0.27577711)
VIT_GIVES = frozenset(
    {"tokens", "keys", "queries", "values", "cls", "attention", "received", "context", "slopes"}
)
CLIP_GIVES = VIT_GIVES | {"dense", "joint"}
# The hub holds some of these repositories in the second form only.
FILENAMES = ("model.safetensors", "pytorch_model.bin")
CLIP = "clip-vitb16"  # the one that is advised where a CLIP is needed
# The vocabulary of a CLIP's tokenizer: in transformers' repositories (the first two) and OpenAI's.
VOCABULARIES = ("merges.txt", "tokenizer.json", "bpe_simple_vocab_16e6.txt.gz")


@dataclass(frozen=True)
class Entry:
    """A backbone that can be asked for by name.

    Attributes:
        name: what the user writes.
        arch: a name in `networks.vit.ARCHITECTURES`, or the backbone's own kind.
        patch: pixels per cell of the feature grid.
        licence: SPDX id of the weights' licence.
        gives: fields of `Features` it can compute.
        repo: repository on huggingface.co; empty if the backbone needs no weights.
        filenames: the weights file in the repository, in order of preference.
        companions: small files of the repository that the backbone needs beside its weights.
        parameters: parameters of the network, without heads that it does not use.
        registers: extra tokens of a DINOv2 network with registers.
        pos_interp: how position embeddings reach other grids, see `ops.position`.
        mean: per RGB channel, of images scaled to 0..1, as the network was trained.
        std: likewise.
        sha256: of the weights file; None where nobody has computed it from the file yet.
        packaged: the weights file inside this package; empty for all that are fetched.
    """

    name: str
    arch: str
    patch: int
    licence: str
    gives: frozenset[str]
    repo: str = ""
    filenames: tuple[str, ...] = FILENAMES
    companions: tuple[str, ...] = ()
    parameters: int = 0
    registers: int = 0
    pos_interp: PosInterp = "dino"
    mean: Colour = IMAGENET_MEAN
    std: Colour = IMAGENET_STD
    sha256: str | None = None
    packaged: str = ""

    @property
    def is_clip(self) -> bool:
        """Whether it reads texts, too."""
        return "joint" in self.gives

    @property
    def download_bytes(self) -> int:
        """Approximate size: published files are float32, the one that comes along is float16."""
        return (2 if self.packaged else 4) * self.parameters

    @property
    def source(self) -> str:
        """Where the weights come from, for people."""
        if self.packaged:
            return "comes with zerolabel"
        return f"huggingface.co/{self.repo}" if self.repo else "needs no weights"


BACKBONES: dict[str, Entry] = {
    "dino-vits16": Entry(
        name="dino-vits16",
        arch="vit-small",
        patch=16,
        licence="Apache-2.0",
        gives=VIT_GIVES,
        repo="facebook/dino-vits16",
        parameters=21_665_664,
    ),
    "dino-vits8": Entry(
        name="dino-vits8",
        arch="vit-small",
        patch=8,
        licence="Apache-2.0",
        gives=VIT_GIVES,
        repo="facebook/dino-vits8",
        parameters=21_670_272,
    ),
    "dino-vitb16": Entry(
        name="dino-vitb16",
        arch="vit-base",
        patch=16,
        licence="Apache-2.0",
        gives=VIT_GIVES,
        repo="facebook/dino-vitb16",
        parameters=85_798_656,
    ),
    "dino-vitb8": Entry(
        name="dino-vitb8",
        arch="vit-base",
        patch=8,
        licence="Apache-2.0",
        gives=VIT_GIVES,
        repo="facebook/dino-vitb8",
        parameters=85_807_872,
    ),
    "dinov2-vits14": Entry(
        name="dinov2-vits14",
        arch="vit-small",
        patch=14,
        licence="Apache-2.0",
        gives=VIT_GIVES,
        repo="facebook/dinov2-small",
        parameters=22_056_192,
    ),
    "dinov2-vitb14": Entry(
        name="dinov2-vitb14",
        arch="vit-base",
        patch=14,
        licence="Apache-2.0",
        gives=VIT_GIVES,
        repo="facebook/dinov2-base",
        parameters=86_579_712,
    ),
    "dinov2-vitl14": Entry(
        name="dinov2-vitl14",
        arch="vit-large",
        patch=14,
        licence="Apache-2.0",
        gives=VIT_GIVES,
        repo="facebook/dinov2-large",
        parameters=304_367_616,
    ),
    "dinov2-vits14-reg": Entry(
        name="dinov2-vits14-reg",
        arch="vit-small",
        patch=14,
        licence="Apache-2.0",
        gives=VIT_GIVES,
        repo="facebook/dinov2-with-registers-small",
        parameters=22_057_728,
        registers=4,
        pos_interp="size-antialias",
    ),
    "dinov2-vitb14-reg": Entry(
        name="dinov2-vitb14-reg",
        arch="vit-base",
        patch=14,
        licence="Apache-2.0",
        gives=VIT_GIVES,
        repo="facebook/dinov2-with-registers-base",
        parameters=86_582_784,
        registers=4,
        pos_interp="size-antialias",
    ),
    # Parameters are those of both towers.
    "clip-vitb16": Entry(
        name="clip-vitb16",
        arch="vit-base",
        patch=16,
        licence="MIT",
        gives=CLIP_GIVES,
        repo="openai/clip-vit-base-patch16",
        companions=VOCABULARIES[:1],
        parameters=149_620_736,
        pos_interp="size",
        mean=CLIP_MEAN,
        std=CLIP_STD,
    ),
    "clip-vitb32": Entry(
        name="clip-vitb32",
        arch="vit-base",
        patch=32,
        licence="MIT",
        gives=CLIP_GIVES,
        repo="openai/clip-vit-base-patch32",
        companions=VOCABULARIES[:1],
        parameters=151_277_312,
        pos_interp="size",
        mean=CLIP_MEAN,
        std=CLIP_STD,
    ),
    "clip-vitl14": Entry(
        name="clip-vitl14",
        arch="vit-large",
        patch=14,
        licence="MIT",
        gives=CLIP_GIVES,
        repo="openai/clip-vit-large-patch14",
        companions=VOCABULARIES[:1],
        parameters=427_616_512,
        pos_interp="size",
        mean=CLIP_MEAN,
        std=CLIP_STD,
    ),
    # Pre-trained by this project without any label; docs/backbone.md says on what.
    "embedded": Entry(
        name="embedded",
        arch="vit-mini",
        patch=8,
        licence="Apache-2.0",
        gives=VIT_GIVES,
        parameters=3_085_536,
        pos_interp="size",
        sha256="635d008d8b8404150ed9bc57477faae8dd3283f71deffa53fa2e7593e49c703f",
        packaged="embedded.safetensors",
    ),
    "filterbank": Entry(
        name="filterbank",
        arch="filterbank",
        patch=8,
        licence="Apache-2.0",
        gives=frozenset({"tokens"}),
    ),
}


def entry(name: str) -> Entry:
    """Look a backbone up.

    Args:
        name: a key of `BACKBONES`.

    Returns:
        Its entry.

    Raises:
        UsageError: no backbone has this name.
    """
    if name not in BACKBONES:
        raise unknown_name("backbone", name, BACKBONES)
    return BACKBONES[name]


def giving(what: str) -> list[str]:
    """Name the backbones that give a feature.

    Args:
        what: a field of `Features`, e.g. "attention".

    Returns:
        Their names in the order of the table; empty if none does.
    """
    return [name for name, item in BACKBONES.items() if what in item.gives]
