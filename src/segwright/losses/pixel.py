"""Losses that weigh every pixel alone.

Cross-entropy with class weights: sum(w_y * -log p_y) / sum(w_y) over valid pixels, as torch.nn.CrossEntropyLoss has it.
Label smoothing (Szegedy 2016, https://arxiv.org/abs/1512.00567) spreads a share of the target evenly over the classes
that take part. Focal loss (Lin 2017, https://arxiv.org/abs/1708.02002) multiplies each pixel by (1 - p_y)^gamma.
"""

from __future__ import annotations

from torch import Tensor

from segwright.losses.comparison import Comparison, positive


def cross_entropy(case: Comparison) -> Tensor:
    """Weighted mean of -log p_y; 0 where no pixel is valid.

    With label smoothing e over K' classes: (1 - e) * ce + e / K' * sum_k(w_k * -log p_k), both over the same sum of
    weights. Classes that are ignored in the loss get no share of the smoothing, so a model that may never predict them
    is not punished for it.
    """
    counts = case.by_batch
    total = positive((case.weight * counts.count).sum())
    loss = (case.weight * counts.nll).sum() / total
    if case.label_smoothing == 0:
        return loss
    spread = -(case.weight * counts.log_mass).sum() / (case.kept.sum() * total)
    return (1 - case.label_smoothing) * loss + case.label_smoothing * spread


def focal(case: Comparison, *, gamma: float = 2.0) -> Tensor:
    """Weighted mean of (1 - p_y)^gamma * -log p_y: pixels that are right already count less; gamma 0 is cross-entropy.

    The mean is over the weights of the classes, as in cross-entropy, so that the loss has the same scale at any gamma.
    """
    counts = case.by_batch
    return (case.weight * counts.focal[gamma]).sum() / positive((case.weight * counts.count).sum())


def boundary_cross_entropy(case: Comparison, *, strength: float = 10.0, reach_px: float = 5.0) -> Tensor:
    """Cross-entropy in which pixels near a border weigh up to 1 + strength.

    U-Net's weight map (Ronneberger 2015, https://arxiv.org/abs/1505.04597) is w(x) = 1 + w0 exp(-(d1 + d2)^2 / (2 s^2))
    with the distances d1, d2 to the two nearest cells. A mask of classes does not tell touching cells apart, so the
    distance d to the nearest border between two labels stands for the sum: w(x) = 1 + strength exp(-d^2 / (2 reach^2)).
    """
    counts = case.by_batch
    return (case.weight * counts.edge).sum() / positive((case.weight * counts.edge_count).sum())
