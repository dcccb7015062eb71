"""dino-attention: objects are what the CLS token of a self-supervised transformer looks at.

The last block's attention from CLS to the patches, cut off so that the kept patches hold 60 % of
its mass, shows objects though nobody named them (Caron et al., "Emerging properties in
self-supervised vision transformers", ICCV 2021, section 4.2.2). The paper stops at masks per image;
here every connected part, and the background, is described by one vector and categorised over the
data set. Shapes: `B` images, `h w` patch grid, `D` channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from zerolabel.backbones import Backbone, require
from zerolabel.errors import UsageError
from zerolabel.methods.regions import RegionConfig, RegionMethod
from zerolabel.stages.describe import wants
from zerolabel.stages.discover import Encoded, each, needs
from zerolabel.stages.encode import Loaded
from zerolabel.store import Store

FEATURES = ("tokens", "keys")


@dataclass(frozen=True, kw_only=True)
class Config(RegionConfig):
    """Settings; those that all region methods have are documented with them.

    Attributes:
        features: patch features that describe a region where no crop does: "tokens" or "keys".
    """

    discover: str = "attention"
    features: str = "tokens"


# The published viewer's size and mass; it cleans nothing up and paints whole patches.
PAPER = replace(Config(), size=(480, 480), minimum=1, refine="nearest")
PRESETS = {
    "default": Config(),
    "protocol": Config(refine="bilinear"),  # without help from the photo
    "paper": PAPER,
}


class DinoAttention(RegionMethod):
    """Regions of high CLS attention, described and categorised."""

    name = "dino-attention"
    PRESETS = PRESETS
    config: Config

    def __init__(self, config: Config, backbone: Backbone) -> None:
        if config.features not in FEATURES:
            raise UsageError(
                f"features must be one of {', '.join(FEATURES)}, got {config.features!r}."
            )
        require(backbone, config.features)
        super().__init__(config, backbone)

    def facts(self) -> tuple[object, ...]:
        """See `RegionMethod.facts`."""
        return (self.config.features,)

    def look(self, batch: Loaded, store: Store) -> Sequence[Encoded]:
        """Patch features and, for the mass threshold, CLS attention."""
        c = self.config
        seen = self.backbone.encode(batch.images, want={c.features} | needs(c) | wants(c))
        return each(seen, getattr(seen, c.features))
