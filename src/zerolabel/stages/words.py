"""Words as directions in the space that a backbone shares between images and texts.

And which of them are looked for, where there is a background beside them.

Shapes: `Q` words, `P` channels of that space.

Source: Radford et al., "Learning Transferable Visual Models From Natural Language Supervision",
ICML 2021, section 3.1.4, which averages the embeddings of a word in many templates.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from zerolabel.backbones import cache
from zerolabel.data.words import Words, parse_words, words_of
from zerolabel.errors import UsageError
from zerolabel.store import Stage, Store

GAP = "{}"  # where a template has the word
BACKGROUND = "background"  # what category 0 is called where it is told apart


class Reader(Protocol):
    """A backbone that reads texts."""

    @property
    def digest(self) -> str:
        """Hash of everything its embeddings depend on, apart from the text."""

    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """Embeddings float32 (n, P), of any length."""


def queries(
    backbone: Reader, words: Sequence[str], *, templates: Sequence[str], store: Store
) -> Tensor:
    """Embed words: each in all templates, every text as a direction, their mean as a direction.

    Args:
        backbone: reads texts.
        words: Q >= 1 of them; a word that comes twice is embedded once.
        templates: such as "a photo of a {}.", at least one.
        store: keeps what was embedded, and is told the progress as "words".

    Returns:
        float32 (Q, P), unit rows, on the CPU.

    Raises:
        UsageError: no word, no template, or a template without a place for the word.
    """
    odd = [template for template in templates if GAP not in template]
    if not words or not templates or odd:
        counts = f"{len(words)} words, {len(templates)} templates"
        what = f"the template {odd[0]!r}" if odd else counts
        raise UsageError(
            f"Expected at least one word, and templates with {GAP} where the word goes; found "
            f"{what}."
        )
    distinct = list(dict.fromkeys(words))
    found: dict[str, Tensor] = {}
    for _, [word] in store.track("words", distinct, 1):

        def work(word: str = word) -> Stage:
            texts = [template.replace(GAP, word) for template in templates]
            each = F.normalize(backbone.encode_texts(texts).detach().float().cpu(), dim=-1)
            return Stage({"query": F.normalize(each.mean(0), dim=0).numpy()})

        # A word is a stage: it is dear, and vocabularies share words. It is also encoded alone, so
        # that its digits do not depend on the others.
        name = cache.key("words", [], backbone.digest, word, tuple(templates))
        found[word] = torch.from_numpy(store.stage(name, work).arrays["query"])
    return torch.stack([found[word] for word in words])


def chosen(classes: str, known: Sequence[str], *, purpose: str) -> Words:
    """List the words: those that the user names, or else the classes of the data set.

    Args:
        classes: what the user gave, see `data.words.parse_words`; may be empty.
        known: classes of the data set, index = id; may be empty.
        purpose: who needs them and why, the beginning of the message.

    Returns:
        The words.

    Raises:
        UsageError: there are none.
    """
    if classes:
        return parse_words(classes)
    if known:
        return words_of(known)
    raise UsageError(
        f'{purpose}: give them with --classes "cat, dog, grass, sky", or a file with one per line, '
        "or the name of a label space."
    )


def foreground(words: Words) -> Words:
    """Leave out a first class called background, where the background is told another way.

    Its place stays that of the background, so categories keep the ids of a data set's classes.

    Args:
        words: of all classes.

    Returns:
        The other classes, from 0 on.

    Raises:
        UsageError: it is not the first class, or there is no other.
    """
    folded = [name.casefold() for name in words.names]
    if BACKGROUND not in folded:
        return words
    if folded[0] != BACKGROUND:
        raise UsageError(
            f"{words.names[folded.index(BACKGROUND)]!r} is one of the classes, but the background "
            "is category 0 and told another way. Take it out of the classes."
        )
    if len(folded) == 1:
        raise UsageError("There is no class beside the background. Name at least one.")
    own = [(word, k - 1) for word, k in zip(words.words, words.groups, strict=True) if k]
    return Words(tuple(word for word, _ in own), tuple(k for _, k in own), words.names[1:])
