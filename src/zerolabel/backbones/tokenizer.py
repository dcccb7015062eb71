"""CLIP's byte-pair encoding: from a text to the ids that its text tower knows.

A text is brought to one form (NFC, white space joined, lower case) and parted into runs of letters,
single digits, runs of other signs, and the English endings 's 't 're 've 'm 'll 'd. The bytes of
each part are written as one sign each, the last one marked `</w>`, and neighbours are merged in the
order of the published list (Sennrich et al. 2016; Radford et al. 2021, section 2.4). What OpenAI's
own code does before that, mending broken encodings and HTML entities, is left out, as in
transformers.
"""

from __future__ import annotations

import gzip
import json
import unicodedata
from collections.abc import Iterable, Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor

from zerolabel.errors import UsageError, WeightsError

CONTEXT = 77  # tokens that CLIP's text tower sees, the start and the end among them
MERGES = 48_894  # that CLIP uses; OpenAI's file goes on after them
END_OF_WORD = "</w>"
ENDINGS = ("s", "t", "re", "ve", "m", "ll", "d")  # after an apostrophe; the order is CLIP's
SPACES = frozenset("\t\n\v\f\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000") | {
    chr(code) for code in range(0x2000, 0x200B)
}  # Unicode's White_Space; str.isspace has four control characters more
KEPT = 1 << 16  # parts of texts whose ids are remembered


class Tokenizer:
    """CLIP's tokenizer; without any merge it is one of bytes.

    The special tokens cannot be written: `<|endoftext|>` in a text is read as the signs and letters
    that it consists of, because nobody's class is called so, and an end in the middle of a text
    would have the text tower read half of it. transformers and OpenAI's code take it for the token.

    Attributes:
        merges: the pairs, first those that are merged first.
        size: number of ids; with CLIP's merges 49,408.
        start: id put before every text.
        end: id put after every text, the highest one.
    """

    def __init__(self, merges: Sequence[tuple[str, str]] = ()) -> None:
        self.merges = tuple(merges)
        bytes_ = list(byte_signs().values())
        vocabulary = [*bytes_, *(sign + END_OF_WORD for sign in bytes_), *map("".join, self.merges)]
        # Of two merges to the same piece the last one's id counts, as in the published code.
        self._ids = {piece: i for i, piece in enumerate(vocabulary)}
        self._ranks = {pair: rank for rank, pair in enumerate(self.merges)}
        self._known: dict[str, list[int]] = {}
        self.start = len(vocabulary)
        self.end = self.start + 1
        self.size = self.start + 2

    def encode(self, text: str) -> list[int]:
        """Turn a text into ids, without start and end.

        Args:
            text: any text; what UTF-8 cannot write counts as "?".

        Returns:
            Ids, each in 0..size-3; empty for a text of white space.
        """
        return [i for part in split(normalise(text)) for i in self._encode_part(part)]

    def batch(self, texts: Iterable[str], *, context: int = CONTEXT) -> Tensor:
        """Turn texts into rows of ids, from start to end, filled up with 0.

        Args:
            texts: n texts.
            context: L, length of a row.

        Returns:
            int64 (n, L) on the CPU.

        Raises:
            UsageError: a text is empty, or has more than L - 2 tokens.
        """
        encoded = [(text, self.encode(text)) for text in texts]
        for text, ids in encoded:
            if not ids:
                raise UsageError(f"The text {text!r} is empty. Write at least one letter.")
            if len(ids) > context - 2:
                short = text if len(text) <= 100 else f"{text[:100]}..."
                raise UsageError(
                    f"The text {short!r} has {len(ids)} tokens, but CLIP reads at most "
                    f"{context - 2}. Shorten it."
                )
        rows = torch.zeros(len(encoded), context, dtype=torch.int64)
        for row, (_, ids) in zip(rows, encoded, strict=True):
            row[: len(ids) + 2] = torch.tensor([self.start, *ids, self.end])
        return rows

    def _encode_part(self, part: str) -> list[int]:
        """Merge the bytes of a part, remembering what comes out."""
        if part not in self._known:
            if len(self._known) >= KEPT:
                self._known.clear()
            self._known[part] = [self._ids[piece] for piece in self._merge(part)]
        return self._known[part]

    def _merge(self, part: str) -> list[str]:
        """Merge neighbours, always the pair that stands first in the list, from the left."""
        signs = byte_signs()
        pieces = [signs[byte] for byte in part.encode("utf-8", "replace")]
        pieces[-1] += END_OF_WORD
        while len(pieces) > 1:
            last = len(self._ranks)
            first = min(pairwise(pieces), key=lambda pair: self._ranks.get(pair, last))
            if first not in self._ranks:
                break
            pieces = _join(pieces, first)
        return pieces


def _join(pieces: list[str], pair: tuple[str, str]) -> list[str]:
    """Merge every occurrence of a pair, from the left."""
    joined, i = [], 0
    while i < len(pieces):
        here = i + 1 < len(pieces) and (pieces[i], pieces[i + 1]) == pair
        joined.append("".join(pair) if here else pieces[i])
        i += 2 if here else 1
    return joined


def normalise(text: str) -> str:
    """Bring a text to NFC and lower case, and every run of white space to one blank.

    Letters are lowered one by one, so a Greek sigma at the end of a word stays like any other.
    """
    signs = unicodedata.normalize("NFC", text)
    words = "".join(" " if sign in SPACES else sign.lower() for sign in signs).split(" ")
    return " ".join(word for word in words if word)


def split(text: str) -> list[str]:
    """Part a normalised text as CLIP's pattern does; blanks are left out.

    At every place the first of these that fits is taken: an ending such as 's, a run of letters
    (Unicode's L), one number (N), a run of whatever else is not white space.
    """
    parts: list[str] = []
    i = 0
    while i < len(text):
        ending = next((e for e in ENDINGS if text[i] == "'" and text.startswith(e, i + 1)), "")
        kind, end = _kind(text[i]), i + 1 + len(ending)
        if not ending and kind in ("letter", "other"):
            while end < len(text) and _kind(text[end]) == kind:
                end += 1
        if kind != "blank":
            parts.append(text[i:end])
        i = end
    return parts


def _kind(sign: str) -> str:
    if sign in SPACES:
        return "blank"
    return {"L": "letter", "N": "number"}.get(unicodedata.category(sign)[0], "other")


@cache
def byte_signs() -> dict[int, str]:
    """Give every byte a printable sign, in the order in which CLIP's vocabulary has them.

    Bytes that Latin-1 prints are their own sign; the 68 others get the signs from 256 on (Radford
    et al. 2019, GPT-2).
    """
    printed = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printed]
    return {b: chr(b) for b in printed} | {b: chr(256 + i) for i, b in enumerate(others)}


def read_merges(path: str | Path) -> tuple[tuple[str, str], ...]:
    """Read the merges of a CLIP.

    Args:
        path: `merges.txt` or `tokenizer.json` of transformers, or `bpe_simple_vocab_16e6.txt.gz` of
            OpenAI, unpacked or not. A JSON file is known by its name, the others by their content.

    Returns:
        The pairs, first those that are merged first.

    Raises:
        WeightsError: the file cannot be read, or holds no such list.
    """
    path = Path(path)
    try:
        content = path.read_bytes()
        text = (gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content).decode("utf-8")
        pairs = _of_json(text) if path.suffix == ".json" else _of_lines(text)
    except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
        raise WeightsError(
            f"{path} cannot be read as a vocabulary ({error}). Expected merges.txt, tokenizer.json "
            "or bpe_simple_vocab_16e6.txt.gz of a CLIP."
        ) from None
    if not pairs:
        raise WeightsError(f"{path} holds no merges. Fetch it again.")
    return pairs


def _of_json(text: str) -> tuple[tuple[str, str], ...]:
    merges = json.loads(text)["model"]["merges"]
    return _pairs(merge.split(" ") if isinstance(merge, str) else merge for merge in merges)


def _of_lines(text: str) -> tuple[tuple[str, str], ...]:
    # A piece may hold signs at which str.splitlines would break.
    head, *lines = [line.rstrip("\r") for line in text.split("\n")]
    if "#version" not in head:
        head, lines = "", [head, *lines]
    pairs = _pairs(line.split(" ") for line in lines if line)
    return pairs[:MERGES] if "bpe_simple_vocab" in head else pairs


def _pairs(found: Iterable[Sequence[str]]) -> tuple[tuple[str, str], ...]:
    """Check that everything found is a pair of pieces."""
    pairs = []
    for parts in found:
        if len(parts) != 2 or not all(isinstance(part, str) and part for part in parts):
            raise ValueError(f"expected two pieces, found {parts!r}")
        pairs.append((parts[0], parts[1]))
    return tuple(pairs)
