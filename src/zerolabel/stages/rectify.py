"""The bias of CLIP is learned from photos and the words they show, once per run.

Shapes: `B` squares, `h w` patch grid, `P` channels of the space shared with texts, `Q` words.

Source: Wang and Kang, "ReCLIP++", 2024, sections III-B to III-D.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from zerolabel.backbones import cache
from zerolabel.backbones.clip import ClipBackbone
from zerolabel.backbones.weights import digest
from zerolabel.errors import unknown_name
from zerolabel.networks.bias import BiasConfig, Rectifier, prompt_length, rectifier, word_tokens
from zerolabel.stages.parts import arrays_of, train_in_parts, trained
from zerolabel.stages.views import Library
from zerolabel.store import Stage, Store, below
from zerolabel.training.rectify import RectifyTrainer, RectifyTraining

RECTIFIER, TOWER = "rectifier.", "tower."  # prefixes of weights in a model
CHOICES = {"tower": ("frozen", "tuned"), "prompt": ("fit", "paper")}


@dataclass(frozen=True, kw_only=True)
class Bias:
    """Options of the step; see `networks.bias.BiasConfig`.

    Attributes:
        bias: "independent" (ReCLIP++) or "joint" (ReCLIP).
        combine: "subtract" or "add".
        decoder: whether a convolution makes the result smoother.
        query: "fixed" or "learned".
        norm: of the references, "frobenius" or "rows".
        start: weights of the decoder before any training, "identity" or "kaiming" (published).
        tower: "frozen", or "tuned": the image tower learns, too, which breaks it (table VI). Its
            positions stay those of CLIP.
        prompt: vectors before a name: "fit" as many as leave room for the longest name, up to 73,
            or "paper", 73 and names of at most two tokens.
    """

    bias: str = "independent"
    combine: str = "subtract"
    decoder: bool = True
    query: str = "fixed"
    norm: str = "frobenius"
    start: str = "identity"
    tower: str = "frozen"
    prompt: str = "fit"

    def __post_init__(self) -> None:
        for name, known in CHOICES.items():
            if getattr(self, name) not in known:
                raise unknown_name(f"choice of {name}", getattr(self, name), known)


@dataclass(frozen=True)
class Names:
    """Names of words as the text tower takes them, behind learned vectors.

    Attributes:
        suffix: vectors of name and end, float32 (Q, S, text_dim).
        at: place of the end in `suffix`, int64 (Q,).
        sot: vector of what starts a text, float32 (text_dim,).
        room: learned vectors before a name.
    """

    suffix: Tensor
    at: Tensor
    sot: Tensor
    room: int


def names(backbone: ClipBackbone, words: Sequence[str], *, paper: bool) -> Names:
    """Look the tokens of words up.

    Raises:
        UsageError: a word the tokenizer cannot hold, or that leaves no room before it.
    """
    ids = backbone.tokenise(words)
    suffix, at = word_tokens(ids)
    embed = backbone.text.embed
    device = backbone.device
    with torch.no_grad():
        vectors, sot = embed(suffix.to(device)), embed(ids[0, 0].to(device))
    context = backbone.text.config.context
    return Names(vectors, at, sot, prompt_length(suffix.shape[1], paper=paper, context=context))


def configure(backbone: ClipBackbone, options: Bias, *, words: int, room: int) -> BiasConfig:
    """Say what the rectifier of a backbone is."""
    return BiasConfig(
        dim=backbone.projection,
        width=backbone.dim,
        words=words,
        text_dim=backbone.text.config.dim,
        shared=room,
        kind=options.bias,
        combine=options.combine,
        decoder=options.decoder,
        query=options.query,
        norm=options.norm,
        start=options.start,
    )


def train(
    options: Bias,
    training: RectifyTraining,
    library: Library,
    *,
    words: Sequence[str],
    queries: Tensor,
    present: Tensor,
    store: Store,
) -> tuple[dict[str, Tensor], dict[int, float]]:
    """Train a rectifier, or take up what was trained before.

    Args:
        options: what it is.
        training: how it learns.
        library: squares of photos, and the backbone that sees them.
        words: Q of them.
        queries: their texts, float32 (Q, P), unit rows.
        present: words of every photo, bool (photos, Q).
        store: keeps the result, and every part what is needed to go on.

    Returns:
        "queries" and "references", both (Q, P), the rectifier's weights behind `RECTIFIER`, and
        those of a tower that learned behind `TOWER`; and from step to loss, averaged since the
        step before it.
    """
    backbone = library.backbone
    facts = (backbone.digest, options, training, library.views, list(words), present.tolist())
    name = cache.key("rectify", library.samples, *facts, digest({"queries": queries}))

    def work() -> Stage:
        said = names(backbone, words, paper=options.prompt == "paper")
        config = configure(backbone, options, words=len(words), room=said.room)
        first = backbone.text.embed(torch.zeros((), dtype=torch.int64, device=backbone.device))
        trainer = RectifyTrainer(
            rectifier(config, seed=training.seed, start=first.detach().cpu()),
            backbone.text,
            queries=queries,
            suffix=said.suffix,
            at=said.at,
            sot=said.sot,
            config=training,
            device=backbone.device,
            tower=copy.deepcopy(backbone.net) if options.tower == "tuned" else None,
            reading=backbone.reading,
        )
        grid = (library.views.crop // backbone.stride,) * 2
        positions = backbone.positions(grid)

        def learn() -> float:
            page = library.page(trainer.step)
            seen = page.dense
            if trainer.tower is not None:
                seen = backbone.prepare(library.pixels(page))
            return trainer.learn(seen, positions, present=present[page.rows])

        losses = train_in_parts(name, trainer, learn, steps=training.iterations, store=store)
        asked, references = trainer.texts()
        kept = {"queries": asked, "references": references}
        kept |= {RECTIFIER + key: value for key, value in trainer.weights().items()}
        if trainer.tower is not None:
            kept |= {TOWER + key: value for key, value in trainer.tower.state_dict().items()}
        return Stage(arrays_of(kept), {"losses": losses})

    return trained(name, work, steps=training.iterations, store=store)


def rebuild(backbone: ClipBackbone, options: Bias, arrays: Mapping[str, Tensor]) -> Rectifier:
    """Build the rectifier whose weights a model holds, to predict with on the backbone's device."""
    weights = below(arrays, RECTIFIER)
    words, room = len(arrays["references"]), len(weights["prompt"])
    made = rectifier(configure(backbone, options, words=words, room=room))
    made.load_state_dict(weights)
    return made.to(backbone.device).eval().requires_grad_(False)


def horizon(training: RectifyTraining, *, epochs: int, last: int, epoch: int) -> RectifyTraining:
    """Set the lengths of a training in epochs, where they are given so.

    Args:
        training: whose number of steps is kept if `epochs` is 0.
        epochs: of the training.
        last: the epoch after which the learning rate would be 0; 0 stands for the end.
        epoch: steps of an epoch.

    Returns:
        The training.
    """
    if not epochs:
        return replace(training, epoch=epoch)
    after = max(last, epochs) * epoch if last else 0
    return replace(training, iterations=epochs * epoch, epoch=epoch, horizon=after)
