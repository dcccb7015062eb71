"""Settings of self-distillation, and their presets."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Pretrain:
    """What fixes a training run, apart from its data.

    Attributes:
        arch: a name in `networks.vit.ARCHITECTURES`.
        patch: side of a patch in pixels.
        conv_stem: patches come from stride-2 convolutions instead of one linear projection.
        objective: "dino" (prototypes), "infonce" or "coding-rate", see training/dino.py.
        dense: "none", "ibot" (hidden patches of the same view) or "match" (same place in another
            view), see training/dense.py.
        rows: what stands for an image: "cls", "mean" (of its patch tokens) or "both".
        symmetric: teacher and student see both global views, as in DINO; otherwise one each, which
            halves the cost of a step.
        global_size: side of the two global views in pixels.
        global_low: smallest share of the image's area in a global view.
        local_size: side of the local views in pixels.
        local_views: how many local views the student sees.
        local_low: smallest share of the area in a local view; the largest is `global_low`.
        colour: factor on the strength of the colour changes, 0..1.
        hidden: width of the heads' MLP.
        bottleneck: channels of an embedding.
        prototypes: K of the objective "dino".
        dense_weight: of the dense loss beside the image's, whose weight is 1.
        dense_tokens: patches drawn per image and view for the dense loss.
        koleo: weight of the spreading loss on the student's CLS tokens.
        student_temperature: of the objective "dino".
        teacher_temperature: of the objective "dino", at the start and after `temperature_share`.
        temperature_share: share of the run over which the teacher's temperature rises.
        infonce_temperature: of the objective "infonce".
        batch: images per step, over all processes.
        lr: peak learning rate at a batch of 256; scaled linearly with the batch.
        lr_end: learning rate at the last step.
        warmup: share of the run over which the learning rate rises.
        decay: weight decay at the start and the end, cosine between.
        momentum: EMA of the teacher at the start and the end, cosine between.
        clip: largest gradient norm of a single parameter; 0 for none.
        freeze: share of the run during which the prototypes stay as they are.
        drop_path: share of residual branches that the student drops, rising with depth.
        seed: fixes every draw.
    """

    arch: str = "vit-tiny"
    patch: int = 8
    conv_stem: bool = True
    objective: str = "dino"
    dense: str = "match"
    rows: str = "cls"
    symmetric: bool = True
    global_size: int = 64
    global_low: float = 0.35
    local_size: int = 32
    local_views: int = 6
    local_low: float = 0.08
    colour: float = 1.0
    hidden: int = 1024
    bottleneck: int = 256
    prototypes: int = 4096
    dense_weight: float = 1.0
    dense_tokens: int = 16
    koleo: float = 0.1
    student_temperature: float = 0.1
    teacher_temperature: tuple[float, float] = (0.04, 0.07)
    temperature_share: float = 0.3
    infonce_temperature: float = 0.2
    batch: int = 512
    lr: float = 5e-4
    lr_end: float = 1e-6
    warmup: float = 0.04
    decay: tuple[float, float] = (0.04, 0.2)
    momentum: tuple[float, float] = (0.996, 1.0)
    clip: float = 3.0
    freeze: float = 0.03
    drop_path: float = 0.1
    seed: int = 0


PRESETS = {
    # one GPU, small images
    "default": Pretrain(),
    # Caron et al. 2021, ViT-S/16 of 100 epochs: what the published code runs by default
    "dino": Pretrain(
        arch="vit-small",
        patch=16,
        conv_stem=False,
        dense="none",
        global_size=224,
        global_low=0.4,
        local_size=96,
        local_views=8,
        local_low=0.05,
        hidden=2048,
        prototypes=65536,
        koleo=0.0,
        teacher_temperature=(0.04, 0.04),
        temperature_share=0.0,
        batch=1024,
        warmup=0.1,
        decay=(0.04, 0.4),
        freeze=0.01,
    ),
    # two CPU cores and one or two hours
    "cpu": Pretrain(
        arch="vit-mini",
        objective="infonce",
        rows="both",
        symmetric=False,
        global_size=48,
        global_low=0.25,
        local_size=24,
        local_views=0,
        hidden=512,
        bottleneck=128,
        koleo=0.0,
        batch=128,
        lr=2e-3,
        lr_end=2e-5,
        decay=(0.04, 0.04),
        momentum=(0.99, 0.999),
        drop_path=0.0,
    ),
}
