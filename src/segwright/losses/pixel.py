"""Losses that weigh every pixel alone.

Cross-entropy with class weights: sum(w_y * -log p_y) / sum(w_y) over valid pixels, as torch.nn.CrossEntropyLoss has it.
Label smoothing (Szegedy 2016, https://arxiv.org/abs/1512.00567) spreads a share of the target evenly over the classes
that take part.
"""

from __future__ import annotations

import torch
from torch import Tensor

from segwright.losses.counts import SoftCounts


def cross_entropy(counts: SoftCounts) -> Tensor:
    """Weighted mean of -log p_y; 0 where no pixel is valid.

    With label smoothing e over K' classes: (1 - e) * ce + e / K' * sum_k(w_k * -log p_k), both over the same sum of
    weights. Classes that are ignored in the loss get no share of the smoothing, so a model that may never predict them
    is not punished for it.
    """
    total = _positive((counts.weight * counts.count).sum())
    loss = (counts.weight * counts.nll).sum() / total
    if counts.label_smoothing == 0:
        return loss
    spread = -(counts.weight * counts.log_mass).sum() / (counts.kept.sum() * total)
    return (1 - counts.label_smoothing) * loss + counts.label_smoothing * spread


def _positive(total: Tensor) -> Tensor:
    """`total`, or 1 where it is 0, so that an empty batch divides 0 by 1."""
    return torch.where(total > 0, total, torch.ones_like(total))
