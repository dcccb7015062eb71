"""A student of (rectified) CLIP: a network that gives vectors, and the head that scores words.

The head is what rectified CLIP has, frozen, so the student learns vectors that fit it; or less of
that, or one of its own. Shapes: `B` images, `H W` pixels, `h w` patch grid of CLIP, `h' w'` grid of
the student, `P` channels of the space of images and texts, `D` of CLIP's image tower, `Q` words.

Source: Wang and Kang, "ReCLIP++: Learn to rectify the bias of CLIP for unsupervised semantic
segmentation", 2024, section III-E and table IX; Zhou et al., "Extract free dense labels from CLIP",
ECCV 2022, for fixed queries on vectors of any length.
"""

from __future__ import annotations

import copy
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import skip_init

from zerolabel.errors import UsageError, unknown_name
from zerolabel.networks.bias import Rectifier
from zerolabel.networks.deeplab import DeepLabV2
from zerolabel.ops.distillation import resized

HEADS = ("inherited", "query+bias", "query", "own")
BIASED = ("inherited", "query+bias")  # heads that need a rectifier


class Seen(NamedTuple):
    """What a student says of images.

    Attributes:
        embedding: of any length, float32 (B, h', w', P).
        logits: of every word, float32 (B, Q, h', w').
    """

    embedding: Tensor
    logits: Tensor


class StudentHead(nn.Module):
    """Scores of words from a student's vectors; see `student_head`.

    Nothing of it learns, but for an own convolution. The decoder's batch norm keeps the teacher's
    scale and shift and collects its statistics anew, as the student's scores are not the teacher's.
    """

    queries: Tensor
    references: Tensor | None

    def __init__(
        self,
        kind: str,
        queries: Tensor,
        *,
        references: Tensor | None = None,
        rectifier: Rectifier | None = None,
        unit: bool = True,
    ) -> None:
        super().__init__()
        if kind not in HEADS:
            raise unknown_name("head", kind, HEADS)
        if queries.ndim != 2:
            raise UsageError(f"Expected queries (Q, P), found {tuple(queries.shape)}.")
        biased = kind in BIASED
        if biased and (rectifier is None or references is None):
            raise UsageError(
                f"The head {kind!r} is inherited from a rectifier, and there is none. Give the "
                "rectifier and its references, or take the head 'query' or 'own'."
            )
        self.kind, self.unit = kind, unit
        self.register_buffer("queries", queries.detach().float().clone())
        held = references.detach().float().clone() if biased and references is not None else None
        self.register_buffer("references", held)
        self.rectifier = _inherit(rectifier, kind) if biased and rectifier is not None else None
        words, dim = queries.shape
        self.own: nn.Conv2d | None = None
        if kind == "own":
            self.own = skip_init(nn.Conv2d, dim, words, 1)  # type: ignore[no-untyped-call]

    def train(self, mode: bool = True) -> StudentHead:
        """Of what is inherited only the decoder's batch norm ever trains: its statistics move."""
        super().train(mode)
        if self.rectifier is not None:
            self.rectifier.eval()
            if self.rectifier.decoder is not None:
                self.rectifier.decoder.train(mode)
        return self

    def forward(self, embedding: Tensor, positions: Tensor | None = None) -> Tensor:
        """Score every word at every place.

        Args:
            embedding: the student's vectors, of any length, float32 (B, h', w', P).
            positions: CLIP's position embedding for these images, float32 (h, w, D); needed by
                heads with a bias. Its map is resized bilinearly to the student's grid.

        Returns:
            float32 (B, Q, h', w').

        Raises:
            UsageError: vectors or positions of another width, or positions lacking.
        """
        if embedding.ndim != 4 or embedding.shape[3] != self.queries.shape[1]:
            raise UsageError(
                f"Expected vectors (B, h, w, {self.queries.shape[1]}) as the queries have, found "
                f"{tuple(embedding.shape)}."
            )
        if self.own is not None:
            scores: Tensor = self.own(embedding.permute(0, 3, 1, 2))
            return scores
        x = F.normalize(embedding, dim=3) if self.unit else embedding
        if self.rectifier is None:
            return (x @ self.queries.T).permute(0, 3, 1, 2)
        return self.rectifier.rectify(x, self.queries, bias=self._bias(x, positions))

    def _bias(self, x: Tensor, positions: Tensor | None) -> Tensor:
        """The inherited bias on the student's grid: (1, Q, h', w'), or of B images."""
        assert self.rectifier is not None  # see forward
        assert self.references is not None  # see __init__
        config = self.rectifier.config
        if positions is None or positions.ndim != 3 or positions.shape[2] != config.width:
            found = None if positions is None else tuple(positions.shape)
            raise UsageError(
                f"The head {self.kind!r} needs CLIP's positions (h, w, {config.width}), found "
                f"{found}. Give those of the images' grid."
            )
        joint = config.kind == "joint"
        with torch.no_grad():
            # without features only the part that depends on the place is left
            nothing = x.new_zeros(1, *positions.shape[:2], x.shape[3]) if joint else None
            bias = self.rectifier.bias(positions.float(), self.references, dense=nothing)
            bias = resized(bias, (x.shape[1], x.shape[2]))
        return bias + (x @ self.references.T).permute(0, 3, 1, 2) if joint else bias


class Distilled(nn.Module):
    """A student and its head; names `student.*` and `head.*`."""

    def __init__(self, student: DeepLabV2, head: StudentHead) -> None:
        super().__init__()
        if student.config.out != head.queries.shape[1]:
            raise UsageError(
                f"The student gives {student.config.out} channels, the queries have "
                f"{head.queries.shape[1]}. Build it with as many as the queries have."
            )
        self.student, self.head = student, head

    def forward(
        self, images: Tensor, positions: Tensor | None = None, *, amp: bool = False
    ) -> Seen:
        """Embed images and score words.

        Args:
            images: normalised, float32 (B, 3, H, W).
            positions: see `StudentHead.forward`.
            amp: let the student compute in bfloat16; the head never does.

        Returns:
            Vectors and scores, float32.
        """
        with torch.autocast(images.device.type, torch.bfloat16, enabled=amp):
            z = self.student(images)
        embedding = z.float().permute(0, 2, 3, 1)  # (B, h', w', P)
        return Seen(embedding, self.head(embedding, positions))

    @torch.no_grad()
    def predict(
        self, images: Tensor, positions: Tensor | None = None, *, amp: bool = False
    ) -> Tensor:
        """Score words in evaluation mode; arguments as in `forward`, result (B, Q, h', w')."""
        before = self.training
        self.eval()
        try:
            seen: Seen = self(images, positions, amp=amp)
        finally:
            self.train(before)
        return seen.logits


def student_head(
    kind: str,
    queries: Tensor,
    *,
    references: Tensor | None = None,
    rectifier: Rectifier | None = None,
    unit: bool = True,
    seed: int = 0,
) -> StudentHead:
    """Build the head that a student learns with.

    Args:
        kind: "inherited": all that rectified CLIP has; "query+bias": the same without its decoder;
            "query": fixed queries; "own": a convolution of 1x1 places that learns.
        queries: float (Q, P), unit rows; copied.
        references: float (Q, P) of the rectifier, for the first two; copied.
        rectifier: likewise.
        unit: heads but "own" see vectors of length 1, as CLIP's; else as the student gives them.
        seed: of an own convolution.

    Returns:
        The head, on the device of the queries.

    Raises:
        UsageError: an unknown kind, or no rectifier where one is needed.
    """
    head = StudentHead(kind, queries, references=references, rectifier=rectifier, unit=unit)
    if head.own is not None:
        generator = torch.Generator().manual_seed(seed)
        nn.init.normal_(head.own.weight, std=0.01, generator=generator)
        assert head.own.bias is not None  # it was asked for
        nn.init.zeros_(head.own.bias)
    return head.to(queries.device)


def _inherit(rectifier: Rectifier, kind: str) -> Rectifier:
    """A frozen copy whose decoder, if the head has one, has seen nothing yet."""
    kept = copy.deepcopy(rectifier).requires_grad_(False).eval()
    if kind == "query+bias":
        kept.decoder = None
    if kept.decoder is not None:
        kept.decoder.norm.reset_running_stats()
    return kept
