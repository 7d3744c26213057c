"""Losses that compare regions: the overlap of prediction and truth, class by class, over the batch or image by image.

With soft counts TP, FP and FN of a class, the Tversky index (Salehi 2017, https://arxiv.org/abs/1706.05721) is
TP / (TP + alpha FP + beta FN); 1/2, 1/2 is Dice (Milletari 2016, https://arxiv.org/abs/1606.04797), 1, 1 is Jaccard or
intersection over union (Rahman 2016, https://doi.org/10.1007/978-3-319-50835-1_22). The loss is the mean of 1 - index.

Classes that are absent from the truth are left out of the mean: their index is 0 whatever is predicted, and a mean over
a changing number of constants would only add noise. Their false positives are still punished, as false negatives of the
classes that stand there. Ignored classes are left out too. No smoothing constant is needed, for a present class has
count > 0.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from segwright.losses.comparison import Comparison, Over


def dice(case: Comparison, *, over: Over = "batch") -> Tensor:
    """1 - 2 TP / (2 TP + FP + FN), mean over the classes that are present."""
    return tversky(case, alpha=0.5, beta=0.5, over=over)


def jaccard(case: Comparison, *, over: Over = "batch") -> Tensor:
    """1 - TP / (TP + FP + FN), mean over the classes that are present."""
    return tversky(case, alpha=1.0, beta=1.0, over=over)


def tversky(case: Comparison, *, alpha: float = 0.3, beta: float = 0.7, over: Over = "batch") -> Tensor:
    """1 - TP / (TP + alpha * FP + beta * FN), mean over present classes; beta above alpha punishes what is missed."""
    return _tversky(case, alpha=alpha, beta=beta, power=1.0, over=over)


def focal_tversky(
    case: Comparison, *, alpha: float = 0.3, beta: float = 0.7, gamma: float = 0.75, over: Over = "batch"
) -> Tensor:
    """(1 - Tversky index)^gamma, mean over present classes (Abraham 2018, https://arxiv.org/abs/1810.07842).

    Their exponent is 1 / (4 / 3): below 1, so that classes that are nearly right still give a gradient.
    """
    return _tversky(case, alpha=alpha, beta=beta, power=gamma, over=over)


def _tversky(case: Comparison, *, alpha: float, beta: float, power: float, over: Over) -> Tensor:
    counts = case.counts(over)
    missed = counts.count - counts.overlap
    alarms = counts.mass - counts.overlap
    size = counts.overlap + alpha * alarms + beta * missed
    # With alpha = beta = 0 a class may have no size although it is present; an absent one may be 0 / 0.
    present = (counts.count > 0) & (size > 0)
    index = counts.overlap / torch.where(present, size, torch.ones_like(size))
    losses = 1 - index
    if power != 1:
        # A perfect class has an infinite slope below power 1.
        losses = losses.clamp(min=torch.finfo(losses.dtype).eps) ** power
    return case.mean_of_classes(losses, present=counts.count > 0, over=over)


def lovasz(case: Comparison, *, over: Over = "batch") -> Tensor:
    """Lovász-softmax: the tight convex surrogate of Jaccard (Berman 2018, https://arxiv.org/abs/1705.08790).

    Pixels are sorted by their error, class by class, which several processes cannot do together: each takes its own
    part of the batch, and gradients are averaged.
    """
    num_classes = case.logits.shape[1]
    if over == "batch":
        flat = case.probs.movedim(1, 0).reshape(1, num_classes, -1)
        labels = case.labels.reshape(1, -1)
    else:
        flat, labels = case.probs.flatten(2), case.labels.flatten(1)
    rows = [_lovasz_of(probs, label, kept=case.kept) for probs, label in zip(flat, labels, strict=True)]
    values = torch.stack([losses for losses, _ in rows])
    present = torch.stack([there for _, there in rows])
    return case.mean_of_classes(values, present=present, over=over)


def _lovasz_of(probs: Tensor, labels: Tensor, *, kept: Tensor) -> tuple[Tensor, Tensor]:
    """Losses (K,) of probabilities (K, P) and labels (P,), and which classes are present."""
    num_classes = len(probs)
    valid = labels < num_classes
    if not bool(valid.all()):
        probs, labels = probs[:, valid], labels[valid]
    present = torch.bincount(labels, minlength=num_classes)[:num_classes] > 0
    losses = []
    for k in range(num_classes):
        there = bool(present[k]) and bool(kept[k])
        losses.append(_LovaszHinge.apply(probs[k], labels == k) if there else probs[k].sum() * 0)
    return torch.stack(losses), present & kept


class _LovaszHinge(torch.autograd.Function):
    """sum of sorted errors times the Lovász gradient of Jaccard; its gradient is that gradient, put back in place."""

    @staticmethod
    def forward(ctx: Any, probs: Tensor, truth: Tensor) -> Tensor:
        errors = torch.where(truth, 1 - probs, probs)
        order = _descending(errors)
        hits = truth[order]
        count = hits.sum()
        intersection = count - hits.cumsum(0)
        union = count + (~hits).cumsum(0)
        jaccard_loss = 1 - intersection.to(errors.dtype) / union
        slope = jaccard_loss
        slope[1:] = jaccard_loss[1:] - jaccard_loss[:-1].clone()
        placed = torch.empty_like(slope)
        placed[order] = slope
        ctx.save_for_backward(placed, truth)
        return torch.dot(errors, placed)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        placed, truth = ctx.saved_tensors
        return grads[0] * torch.where(truth, -placed, placed), None


def _descending(errors: Tensor) -> Tensor:
    """The order of falling errors. On the CPU float32 errors and their places are sorted as one 64-bit number each.

    NumPy sorts those with vector instructions, several times as fast as `torch.sort`. Errors are at least 0, where the
    bits of a float32 rise as the number does.
    """
    if errors.device.type != "cpu" or errors.dtype != torch.float32:
        return errors.argsort(descending=True)
    bits = errors.detach().contiguous().numpy().view(np.uint32).astype(np.uint64)
    keys = (bits << np.uint64(32)) | np.arange(len(bits), dtype=np.uint64)
    keys.sort()
    return torch.from_numpy((keys[::-1] & np.uint64(0xFFFFFFFF)).astype(np.int64))
