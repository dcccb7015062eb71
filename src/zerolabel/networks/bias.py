"""What ReCLIP and ReCLIP++ learn: the bias of CLIP, as scores that are taken off those of words.

CLIP prefers some words (class preference) and some places (space preference). Learned vectors in
front of every name, read by the frozen text tower, stand for the first; a projection of the
position embedding for the second. Shapes: `B` images, `Q` words, `h w` patch grid, `D` channels of
the image tower, `P` of the space of images and texts, `L` learned vectors, `S` tokens of a name and
its end.

Source: Wang and Kang, "ReCLIP++: Learn to rectify the bias of CLIP for unsupervised semantic
segmentation", 2024, sections III-B and III-C, equations 1 to 4; for "joint", what it says there of
ReCLIP, and the published code of both.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zerolabel.errors import UsageError, unknown_name
from zerolabel.networks.clip_text import ClipText

SMALL = 0.01  # a space bias that hardly counts
CONTEXT, SHARED = 77, 73  # tokens that CLIP reads; learned ones: two are left for the name
CHOICES = {
    "kind": ("independent", "joint"),
    "combine": ("subtract", "add"),
    "query": ("fixed", "learned"),
    "norm": ("frobenius", "rows"),
    "start": ("kaiming", "identity"),
}


@dataclass(frozen=True, kw_only=True)
class BiasConfig:
    """Settings; the defaults are ReCLIP++'s.

    Attributes:
        dim: P.
        width: D.
        words: Q.
        text_dim: channels of the text tower's token vectors.
        shared: L, learned vectors that all words share; see `prompt_length`.
        kind: "independent", equation 2, or "joint" as in ReCLIP: the class bias Z W_r^T of each
            image, and a space bias from three convolutions of the position embedding.
        combine: whether to "subtract" the bias, equation 3, or to "add" it (table V).
        decoder: whether a convolution of 5x5 patches makes the result smoother, equation 4.
        query: "fixed", or "learned": the queries get learned vectors, too (table IV).
        norm: references are divided by the "frobenius" norm of all of them, as in the code, so
            that each is about 1 / sqrt(Q) long; or "rows", each by its own.
        start: of what is learned: "kaiming", random as published, or "identity", which hands
            rectified scores on and ignores features, so that the first masks are CLIP's own; and
            the space bias of "joint" starts near 0 instead of near 1, which cosines are not.
        hidden: channels between the convolutions of "joint".
    """

    dim: int
    width: int
    words: int
    text_dim: int
    shared: int = SHARED
    kind: str = "independent"
    combine: str = "subtract"
    decoder: bool = True
    query: str = "fixed"
    norm: str = "frobenius"
    start: str = "kaiming"
    hidden: tuple[int, ...] = (512, 256)

    def __post_init__(self) -> None:
        for name, known in CHOICES.items():
            if getattr(self, name) not in known:
                raise unknown_name(f"choice of {name}", getattr(self, name), known)
        sizes = (self.dim, self.width, self.words, self.text_dim, self.shared, *self.hidden)
        if min(sizes) < 1:
            raise UsageError(f"Expected sizes of a rectifier of 1 or more; found {sizes}.")


class Decoder(nn.Module):
    """A convolution of 5x5 patches over scores and features, and batch normalisation."""

    def __init__(self, dim: int, words: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(dim + words, words, 5, padding=2)
        self.norm = nn.BatchNorm2d(words)

    def forward(self, logits: Tensor, dense: Tensor) -> Tensor:
        """M (B, Q, h, w) and Z (B, h, w, P) -> M_o (B, Q, h, w), equation 4.

        The convolution of both together is the sum of one over each: nothing is concatenated, and
        no gradient is computed for features that are frozen.
        """
        dim = dense.shape[3]
        of_dense, of_logits = self.conv.weight[:, :dim], self.conv.weight[:, dim:]
        x = F.conv2d(dense.permute(0, 3, 1, 2), of_dense, self.conv.bias, padding=2)
        out: Tensor = self.norm(x + F.conv2d(logits, of_logits, padding=2))
        return out


class Rectifier(nn.Module):
    """The bias of CLIP, and how it comes off the scores.

    Attributes:
        config: the settings.
        prompt: (L, text_dim), [v_1]..[v_L] of equation 1.
        query_prompt: the same for the queries; None if they are fixed.
        space: from the position embedding to P channels, or with "joint" to Q.
        decoder: None without.
    """

    def __init__(self, config: BiasConfig) -> None:
        super().__init__()
        self.config = config
        shape = (config.shared, config.text_dim)
        self.prompt = nn.Parameter(torch.zeros(shape))
        learned = config.query == "learned"
        self.query_prompt = nn.Parameter(torch.zeros(shape)) if learned else None
        self.space: nn.Module
        if config.kind == "joint":
            self.space = _convolutions((config.width, *config.hidden, config.words))
        else:
            self.space = nn.Linear(config.width, config.dim)  # a convolution of 1x1 patches
        self.decoder = Decoder(config.dim, config.words) if config.decoder else None

    def references(self, text: ClipText, *, sot: Tensor, suffix: Tensor, at: Tensor) -> Tensor:
        """Read [SOT][v_1]..[v_L][name][EOT] of every word: W_r.

        Args:
            text: frozen; what is before the names is the same for all and runs once.
            sot: float (text_dim,), the vector of the token that starts a text.
            suffix: float (Q, S, text_dim), vectors of name and end; see `word_tokens`.
            at: int64 (Q,), the place of the end within `suffix`.

        Returns:
            (Q, P), of Frobenius norm 1, or with unit rows.
        """
        found = text.after(torch.cat([sot[None], self.prompt]), suffix, at=at)
        if self.config.norm == "rows":
            return F.normalize(found, dim=1)
        unit: Tensor = found / torch.linalg.vector_norm(found)
        return unit

    def queries(self, text: ClipText, *, sot: Tensor, suffix: Tensor, at: Tensor) -> Tensor:
        """Read the same with the queries' own vectors: learned W_q, (Q, P) with unit rows.

        Raises:
            UsageError: the queries are fixed.
        """
        if self.query_prompt is None:
            raise UsageError("The queries are fixed: take those of the templates.")
        found = text.after(torch.cat([sot[None], self.query_prompt]), suffix, at=at)
        return F.normalize(found, dim=1)

    def bias(self, positions: Tensor, references: Tensor, *, dense: Tensor | None = None) -> Tensor:
        """Compute the bias of every word at every position: M_b.

        Args:
            positions: float (h, w, D), the position embedding of the images' grid.
            references: (Q, P).
            dense: (B, h, w, P), unit vectors; "joint" needs them.

        Returns:
            (1, Q, h, w), or (B, Q, h, w) with "joint".

        Raises:
            UsageError: "joint" without `dense`.
        """
        if isinstance(self.space, nn.Linear):
            # W_p W_r^T = E (A^T W_r^T): Q columns pass over the positions instead of P
            weight, shift = references @ self.space.weight, references @ self.space.bias
            return F.linear(positions, weight, shift).permute(2, 0, 1)[None]
        if dense is None:
            raise UsageError("A bias of the kind 'joint' depends on the image: pass `dense`.")
        of_space: Tensor = self.space(positions.permute(2, 0, 1)[None])
        return (dense @ references.T).permute(0, 3, 1, 2) + of_space

    def rectify(self, dense: Tensor, queries: Tensor, *, bias: Tensor) -> Tensor:
        """Take a bias off the scores of words: M_o, or M of equation 3 without a decoder.

        Args:
            dense: float (B, h, w, P), unit vectors.
            queries: (Q, P), unit rows.
            bias: (1, Q, h, w) or (B, Q, h, w).

        Returns:
            (B, Q, h, w).
        """
        logits = (dense @ queries.T).permute(0, 3, 1, 2)  # M_q
        logits = logits - bias if self.config.combine == "subtract" else logits + bias
        if self.decoder is None:
            return logits
        out: Tensor = self.decoder(logits, dense)
        return out

    def forward(
        self, dense: Tensor, queries: Tensor, *, references: Tensor, positions: Tensor
    ) -> Tensor:
        """Rectify images of one grid; arguments and result as in `bias` and `rectify`."""
        bias = self.bias(positions, references, dense=dense)
        return self.rectify(dense, queries, bias=bias)


def rectifier(config: BiasConfig, *, seed: int = 0, start: Tensor | None = None) -> Rectifier:
    """Build a rectifier: convolutions Kaiming normal by fan-out, the projection as torch does.

    Args:
        config: the settings.
        seed: fixes every weight.
        start: float (text_dim,), what all learned vectors start with; published is the vector of
            token 0. None for zeros.

    Returns:
        The rectifier, on the CPU.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.device("meta"):  # so that no constructor draws from the global generator
        made = Rectifier(config)
    made = made.to_empty(device="cpu")
    with torch.no_grad():
        for module in made.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.reset_parameters()
            elif isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", generator=generator)
                if module.bias is not None:
                    module.bias.zero_()
            elif isinstance(module, nn.Linear):
                reach = 1 / math.sqrt(config.width)
                module.weight.uniform_(-reach, reach, generator=generator)
                module.bias.uniform_(-reach, reach, generator=generator)
        if made.decoder is not None and config.start == "identity":
            nn.init.zeros_(made.decoder.conv.weight)
            made.decoder.conv.weight[:, config.dim :, 2, 2] = torch.eye(config.words)
        if isinstance(made.space, nn.Sequential) and config.start == "identity":
            last = cast(nn.BatchNorm2d, made.space[-2])  # of the last convolution
            nn.init.constant_(last.weight, SMALL)
        for prompt in (made.prompt, made.query_prompt):
            if prompt is not None:
                prompt.copy_(torch.zeros(config.text_dim) if start is None else start)  # each row
    return made


def word_tokens(ids: Tensor) -> tuple[Tensor, Tensor]:
    """Take names and their ends out of tokenised names: what stands behind the learned vectors.

    Args:
        ids: int64 (Q, context), [SOT] name [EOT] and zeros; EOT is the largest id.

    Returns:
        ids int64 (Q, S) without SOT, S that of the longest name and its end; shorter ones end in
        zeros. And int64 (Q,), the place of each end within them, 0..S-1.

    Raises:
        UsageError: another shape, or a row without an end.
    """
    if ids.ndim != 2 or not ids.numel():
        raise UsageError(f"Expected token ids (Q, context) of a word; found {tuple(ids.shape)}.")
    at = ids.argmax(dim=1) - 1
    if bool((at < 0).any()):
        raise UsageError(f"Row {int(at.argmin())} of the token ids has no end of text.")
    return ids[:, 1 : int(at.max()) + 2], at


def prompt_length(suffix: int, *, paper: bool = False, context: int = CONTEXT) -> int:
    """Say how many learned vectors fit before names of so many tokens.

    Args:
        suffix: S, tokens of the longest name and its end.
        paper: insist on the paper's 73, which leave room for names of two tokens. (The published
            code cuts longer names, ends included, and reads them at a token of the name.)
        context: tokens that the text tower reads.

    Returns:
        L, 1..73.

    Raises:
        UsageError: the names are too long.
    """
    room = context - 1 - suffix
    if paper and room < SHARED:
        raise UsageError(
            f"{SHARED} learned vectors leave room for names of {context - 2 - SHARED} tokens; the "
            f"longest has {suffix - 1}. Shorten it, or let the number of vectors follow the names."
        )
    if room < 1:
        raise UsageError(f"Expected names of at most {context - 3} tokens; found {suffix - 1}.")
    return min(SHARED, room)


def _convolutions(channels: tuple[int, ...]) -> nn.Sequential:
    """Build convolutions of 3x3 positions, each with batch normalisation and ReLU."""
    layers: list[nn.Module] = []
    for before, after in zip(channels, channels[1:], strict=False):
        conv = nn.Conv2d(before, after, 3, padding=1, bias=False)  # the normalisation has one
        layers += [conv, nn.BatchNorm2d(after), nn.ReLU()]
    return nn.Sequential(*layers)
