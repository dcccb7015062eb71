"""What methods with class words share: words in, a score for each of them at every position out.

A word is a class of its own until the end; then the words of a category become one score. A photo
is seen whole, in its own shape.
Shapes: `h w` patch grid, `P` channels of the space shared with texts, `Q` words, `K` categories.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from zerolabel.backbones import Backbone, require
from zerolabel.backbones.clip import ClipBackbone
from zerolabel.data.words import Words, parse_words, templates
from zerolabel.errors import DataError, ImageError, UsageError
from zerolabel.methods.base import BATCH, Anatomy, Evidence, Method, class_names
from zerolabel.methods.configs import pick
from zerolabel.ops import prompting
from zerolabel.stages import dense
from zerolabel.stages.dense import Look, Seen
from zerolabel.stages.words import BACKGROUND, chosen, foreground, queries
from zerolabel.store import Store
from zerolabel.types import Sample

NOTHING = "none of these"
SHOWN = 3  # words whose scores `explain` draws


@dataclass(frozen=True, kw_only=True)
class WordConfig(Look):
    """Settings that methods with words share.

    Attributes:
        classes: the words, see `data.words.parse_words`; empty takes the classes of the data set.
        background: words of what is none of the classes; together they are category 0.
        none: a position where no word has this share of a softmax over all of them, 0..1, is
            category 0, too; 0 gives every position a word.
        templates: sentences that a word is put into: "all" (85), "imagenet" (80) or "plain" (one).
        residual, mlp: whether dense features keep the residual and the MLP of the last block.
        legacy: activation, normalisation and epsilon of the published code, which are not CLIP's.
        denoise: words that no position gives this share are dropped from an image; 0 keeps all.
        temperature: what scores are multiplied with before any softmax.
        seed: fixes every draw.
        refine: see stages/refine.py.
    """

    classes: str = ""
    background: str = ""
    none: float = 0.0
    templates: str = "all"
    residual: bool = True
    mlp: bool = True
    legacy: bool = False
    denoise: float = 0.0
    temperature: float = 100.0
    seed: int = 0
    refine: str = "guided"


class WordMethod(Method):
    """Words become texts, photos dense features; a subclass says how they are compared."""

    config: WordConfig
    backbone: ClipBackbone
    keys: bool = False  # whether `logits` wants those of the patches
    auto_backbone: ClassVar[str] = "clip-vitb16"

    def __init__(self, config: WordConfig, backbone: Backbone) -> None:
        require(backbone, "dense", "joint")
        if not isinstance(backbone, ClipBackbone):
            raise UsageError(f"Expected a backbone with a text tower, found {backbone.name}.")
        if not (0 <= config.none < 1 and 0 <= config.denoise <= 1):
            found = f"{config.none:g} and {config.denoise:g}"
            raise UsageError(f"none and denoise are shares of 0..1, none below 1; got {found}.")
        templates(config.templates)
        if config.classes:  # a file is read now: what it says, and not its name, decides the result
            named = parse_words(config.classes)
            lexicon(named, config)
            config = replace(config, classes=named.text)
        if config.background:
            config = replace(config, background=parse_words(config.background).text)
        reading = {"residual": config.residual, "mlp": config.mlp, "legacy": config.legacy}
        super().__init__(config, backbone.read_as(**reading))

    @property
    def k(self) -> int:
        """See `Method.k`."""
        return len(self.class_names)

    def names(self) -> dict[int, str]:
        """See `Method.names`: the first word of each category."""
        return dict(enumerate(self.class_names))

    def fit(self, samples: Sequence[Sample], *, store: Store) -> None:
        """See `Method.fit`."""
        purpose = f"{self.name} looks for classes that you name"
        named = chosen(self.config.classes, class_names(samples), purpose=purpose)
        words = lexicon(named, self.config)
        self.class_names = words.names
        found = queries(
            self.backbone, words.words, templates=templates(self.config.templates), store=store
        )
        self.arrays = {"queries": found, "groups": torch.tensor(words.groups)}
        self.learn(samples, words, store=store)

    def learn(self, samples: Sequence[Sample], words: Words, *, store: Store) -> None:
        """Learn from the photos; without anything to learn they are looked at all the same."""
        seen = 0
        for _, batch in store.track("encode", samples, BATCH):
            seen += len(self.photos(batch, store=store)[0])
        if not seen:
            raise DataError("None of the images could be read; failures.json lists the reasons.")

    @abstractmethod
    def logits(self, seen: Seen) -> Tensor:
        """Score every word at every position of a photo: float32 (Q, h, w)."""

    def photos(self, batch: Sequence[Sample], *, store: Store) -> tuple[list[Seen], dict[str, str]]:
        """See `stages.dense.photos`."""
        look: Look = pick(Look, self.config)
        return dense.photos(self.sight(), batch, look, keys=self.keys, store=store)

    def sight(self) -> ClipBackbone:
        """What looks at photos."""
        return self.backbone

    def evidence(
        self, samples: Sequence[Sample], *, store: Store
    ) -> tuple[list[tuple[Sample, Evidence]], dict[str, str]]:
        """See `Method.evidence`; scores are logits, or shares of words where a setting needs them.

        A photo is most typical of a category where it is most like one of its words.
        """
        seen, failures = self.photos(samples, store=store)
        return [(one.sample, self._judge(one, self.logits(one))) for one in seen], failures

    def look_into(self, sample: Sample, *, store: Store) -> Anatomy:
        """See `Method.look_into`; parts are categories, and maps the scores of the best words.

        A class is drawn once, by its best word.
        """
        photos, failures = self.photos([sample], store=store)
        if failures:
            raise ImageError(failures[sample.id])
        [seen] = photos
        logits = self.logits(seen)
        parts = self._judge(seen, logits).scores.argmax(0)
        words = torch.bincount(logits.argmax(0).flatten(), minlength=len(logits))
        best: dict[int, int] = {}  # class -> its word that wins most positions
        for q in words.argsort(descending=True, stable=True).tolist():
            if words[q]:
                best.setdefault(int(self.arrays["groups"][q]), q)
        return Anatomy(seen.dense, parts, maps=self.maps(seen, list(best.values())[:SHOWN]))

    def maps(self, seen: Seen, words: Sequence[int]) -> dict[str, Tensor]:
        """What to draw of some words in a photo: name -> float32 (h, w)."""
        logits = self.logits(seen)
        return {f"score of {self.word(q)}": logits[q] for q in words}

    def word(self, q: int) -> str:
        """What word q stands for."""
        return self.class_names[int(self.arrays["groups"][q])]

    def cosines(self, seen: Seen) -> Tensor:
        """Compare a photo with the texts: M_q, float32 (Q, h, w)."""
        return (F.normalize(seen.dense, dim=-1) @ self.arrays["queries"].T).permute(2, 0, 1)

    def shares(self, logits: Tensor, seen: Seen) -> Tensor:
        """The share of every word at a position, of their softmax, float32 (Q, h, w)."""
        return (self.config.temperature * logits).softmax(0)

    def _judge(self, seen: Seen, logits: Tensor) -> Evidence:
        c, groups = self.config, self.arrays["groups"]
        if c.denoise:
            kept = prompting.denoise(logits, least=c.denoise, temperature=c.temperature)
            logits = prompting.fill(logits, kept)
        scores = self.shares(logits, seen) if c.none or self.keys else c.temperature * logits
        likeness = self.cosines(seen)
        if c.none and not c.background:  # category 0 has no word of its own
            scores = torch.cat([scores, torch.full_like(scores[:1], c.none)])
            likeness = torch.cat([likeness, torch.zeros_like(likeness[:1])])
            groups = torch.cat([groups, groups.new_zeros(1)])
        scores = prompting.fold(scores, groups)
        if c.none:
            scores[0] = scores[0].clamp_min(c.none)
        return Evidence(scores, _typical(prompting.fold(likeness, groups), scores.argmax(0)))


def lexicon(words: Words, config: WordConfig) -> Words:
    """Put the words of no class before the others, as category 0, if there is to be one.

    They take the place of a first class called background.

    Raises:
        UsageError: a word of both, or a class called background that is not the first.
    """
    if not config.background:
        if not config.none:
            return words
        own = foreground(words)
        first = NOTHING if own is words else words.names[0]
        return Words(own.words, tuple(k + 1 for k in own.groups), (first, *own.names))
    ground, words = parse_words(config.background).words, foreground(words)
    both = {word.lower() for word in ground} & {word.lower() for word in words.words}
    if both:
        raise UsageError(
            f"{', '.join(sorted(both))}: expected other words for the background than for the "
            "classes. Take them out of --background or --classes."
        )
    groups = (*(0 for _ in ground), *(k + 1 for k in words.groups))
    return Words((*ground, *words.words), groups, (BACKGROUND, *words.names))


def _typical(likeness: Tensor, winners: Tensor) -> Tensor:
    """The best likeness (K, h, w) of a category among the positions that it wins; -1 if none."""
    won = torch.arange(len(likeness))[:, None, None] == winners  # (K, h, w)
    return likeness.masked_fill(~won, -1.0).flatten(1).amax(1)
