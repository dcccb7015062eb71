"""Settings of ACSeg: one dataclass, and the published choices per data set."""

from __future__ import annotations

from dataclasses import dataclass, replace

from zerolabel.methods.regions import RegionConfig
from zerolabel.stages.by_text import ByText
from zerolabel.stages.foreground import Foreground

CHOICES = {
    "features": ("tokens", "keys", "queries", "values"),
    "classify": ("cluster", "retrieve", "text"),
    "prototypes": ("clusters", "random"),
    "amp": ("auto", "on", "off"),
}


@dataclass(frozen=True, kw_only=True)
class Config(RegionConfig, Foreground, ByText):
    """Settings; those that all region methods have, and those of the verbs, are documented there.

    Attributes:
        features: what patches are grouped by: "tokens", or "keys", "queries" or "values" of the
            last block.
        concepts: the most that an image can have; 5 is the paper's.
        steps: updates of the prototypes; 6 is the paper's.
        attention_heads: of the generator, 0 for one per 64 channels.
        hidden: channels of its feed-forward network, 0 for four times those of the features.
        norm_first, share_steps: of the generator, see networks/concepts.py.
        prototypes: how they start: "clusters" of patches of the data set, or "random" directions.
        iterations: training steps; 2,500 is the paper's.
        batch: images per training step.
        lr, decay: of AdamW.
        amp: "auto" (bfloat16 where the processor multiplies it faster), "on" or "off".
        classify: "cluster" (as `categorise` says), "retrieve" (the class of the most similar
            regions of the images fitted on, which need labels) or "text" (the class whose words
            are nearest, see stages/by_text.py).
        neighbours: regions that vote for a class.
        skip_background: a region has class 0 only where it has no other.
    """

    discover: str = "concepts"
    split: bool = False
    minimum: int = 1
    describe: str = "pool"
    fill: str = "mean"
    crop_fit: str = "stretch"
    features: str = "tokens"
    concepts: int = 16
    steps: int = 6
    attention_heads: int = 0
    hidden: int = 0
    norm_first: bool = False
    share_steps: bool = False
    prototypes: str = "clusters"
    iterations: int = 200
    batch: int = 16
    lr: float = 1e-3
    decay: float = 0.01
    amp: str = "auto"
    classify: str = "cluster"
    neighbours: int = 1
    skip_background: bool = True


# The paper's number of concepts and of training steps, and crops; what it leaves open is ours.
COCO = Config(
    k=27,
    concepts=5,
    iterations=2500,
    batch=64,
    lr=3e-4,
    merge=1.0,
    describe="crop-cls",
    refine="bilinear",
)
PRESETS = {
    "default": Config(),
    "protocol": Config(refine="bilinear"),  # every pixel labelled, without help from the photo
    "voc": replace(COCO, k=21, background="attention"),
    "coco": COCO,  # stuff everywhere: no background
}
