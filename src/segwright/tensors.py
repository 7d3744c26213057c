"""What goes through a network: batches of images on a device, and the letters of their shapes.

They stand apart from `types`, so that whatever reads scores and files alone need not wait for PyTorch.

    N images   C channels   K classes   H, W rows and columns in pixels
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Integer, Shaped
from torch import Tensor

Images = Shaped[Tensor, "N C H W"]
Masks = Integer[Tensor, "N H W"]
Logits = Float[Tensor, "N K H W"]


@dataclass(frozen=True)
class Batch:
    """Images of one size on one device.

    Attributes:
        images: (N, C, H, W), as packed (uint8 as a rule).
        masks: (N, H, W) int64 with labels 0..K-1 or `IGNORE_INDEX`; None where unlabelled.
        index: (N,) positions in the pack.
        share: where the images are tiles of one large image, the share of its valid pixels that they hold.
    """

    images: Images
    masks: Masks | None
    index: Integer[Tensor, " N"] = field(default_factory=lambda: torch.zeros(0, dtype=torch.int64))
    share: float | None = None

    @property
    def weight(self) -> float:
        """How many images the batch stands for."""
        return len(self.images) if self.share is None else self.share
