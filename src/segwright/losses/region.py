"""Losses that compare regions: the overlap of prediction and truth, class by class, over the whole batch.

With soft counts TP, FP and FN of a class, the Tversky index (Salehi 2017, https://arxiv.org/abs/1706.05721) is
TP / (TP + a FP + b FN); a = b = 1/2 is Dice (Milletari 2016, https://arxiv.org/abs/1606.04797), a = b = 1 is Jaccard or
intersection over union (Rahman 2016, https://doi.org/10.1007/978-3-319-50835-1_22). The loss is the mean of 1 - index.

Classes that are absent from the batch's truth are left out of the mean: their index is 0 whatever is predicted, and a
mean over a changing number of constants would only add noise. Their false positives are still punished, as false
negatives of the classes that stand there. Ignored classes are left out too. No smoothing constant is needed, for a
present class has count > 0.
"""

from __future__ import annotations

import torch
from torch import Tensor

from segwright.losses.counts import SoftCounts


def dice(counts: SoftCounts) -> Tensor:
    """1 - 2 TP / (2 TP + FP + FN), mean over the classes that are present."""
    return tversky(counts, false_positive=0.5, false_negative=0.5)


def jaccard(counts: SoftCounts) -> Tensor:
    """1 - TP / (TP + FP + FN), mean over the classes that are present."""
    return tversky(counts, false_positive=1.0, false_negative=1.0)


def tversky(counts: SoftCounts, *, false_positive: float, false_negative: float) -> Tensor:
    """1 - TP / (TP + false_positive * FP + false_negative * FN), mean over present classes; 0 where none is."""
    missed = counts.count - counts.overlap
    alarms = counts.mass - counts.overlap
    size = counts.overlap + false_positive * alarms + false_negative * missed
    present = counts.count > 0
    # An absent class has size FP, possibly 0: dividing by 1 instead keeps its dropped gradient finite.
    index = counts.overlap / torch.where(present, size, torch.ones_like(size))
    losses = torch.where(present, 1 - index, torch.zeros_like(index))
    return losses.sum() / present.sum().clamp(min=1)
