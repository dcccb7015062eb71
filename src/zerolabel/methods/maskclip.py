"""MaskCLIP: dense labels out of CLIP, without any training (Zhou et al., ECCV 2022).

Patches' values of the last block lie in the space of texts: the word that is nearest to a patch is
its class. Words that no patch is sure of are dropped, and patches that are not sure ask those with
similar keys.
Shapes: `h w` patch grid, `Q` words.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor

from zerolabel.backbones import Backbone
from zerolabel.methods.worded import WordConfig, WordMethod
from zerolabel.ops import prompting
from zerolabel.stages.dense import Seen


@dataclass(frozen=True, kw_only=True)
class Config(WordConfig):
    """Settings.

    Attributes:
        smooth: positions whose largest share is below this take the shares of those with similar
            keys; 1 all but those that are certain, 0 none.
    """

    smooth: float = 0.0


PROTOCOL = Config(refine="bilinear")
PRESETS = {
    "default": Config(),
    "protocol": PROTOCOL,
    "legacy_mmseg": replace(PROTOCOL, legacy=True),
    "voc": replace(PROTOCOL, classes="voc20", short=512),
    "context": replace(PROTOCOL, classes="context59", short=520),
    "ade20k": replace(PROTOCOL, classes="ade150", short=512),
    "cityscapes": replace(PROTOCOL, classes="cityscapes19", short=512),
    "coco27": replace(PROTOCOL, classes="coco27", short=512),
}


class MaskClip(WordMethod):
    """Words against dense features, nothing learned."""

    name = "maskclip"
    PRESETS = PRESETS
    config: Config

    def __init__(self, config: Config, backbone: Backbone) -> None:
        super().__init__(config, backbone)
        self.keys = config.smooth > 0

    def logits(self, seen: Seen) -> Tensor:
        """See `WordMethod.logits`: cosines of patches and texts."""
        return self.cosines(seen)

    def shares(self, logits: Tensor, seen: Seen) -> Tensor:
        """See `WordMethod.shares`; positions that are not sure ask others."""
        shares = super().shares(logits, seen)
        if seen.keys is None:
            return shares
        return prompting.smooth(shares, seen.keys, below=self.config.smooth)
