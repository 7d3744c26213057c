"""Losses that look at outlines."""

from __future__ import annotations

import torch
from torch import Tensor

from segwright.losses.comparison import Comparison


def boundary(case: Comparison) -> Tensor:
    """How far predicted probability lies from the true region (Kervadec 2019, https://arxiv.org/abs/1812.07032).

    Mean over valid pixels and over the classes that an image holds of (p_k - y_k) * d_k, with d_k the signed distance
    in pixels to the border of class k. The term y_k d_k is a constant of the mask; it makes a perfect prediction 0. The
    paper adds this loss to a region loss with a small weight that grows: `dice + ramp(0, 0.01)*boundary`.
    """
    weight = case.present_weight
    valid = case.valid.unsqueeze(1)
    away = (case.probs - case.truth) * case.signed_distances * valid
    per_class = away.flatten(2).sum(2) * weight
    return case.ratio(per_class, weight * valid.flatten(2).sum(2))


def gradient_magnitude(case: Comparison) -> Tensor:
    """Difference between how steeply prediction and truth change from pixel to pixel.

    Mean over valid pixels and over the classes that an image holds of | |grad p_k| - |grad y_k| |, gradients by
    differences to the next pixel right and below: sharp outlines where the truth has them and none elsewhere. A pixel
    counts where both of those neighbours do. The idea is that of the gradient difference loss (Mathieu 2016, https://arxiv.org/abs/1511.05440).
    """
    weight = case.present_weight
    valid = case.valid[:, :-1, :-1] & case.valid[:, 1:, :-1] & case.valid[:, :-1, 1:]
    difference = (_steepness(case.probs) - _steepness(case.truth)).abs() * valid.unsqueeze(1)
    per_class = difference.sum((2, 3)) * weight
    return case.ratio(per_class, weight * valid.sum((1, 2)).unsqueeze(1))


def _steepness(x: Tensor) -> Tensor:
    """(N, K, H - 1, W - 1) length of the gradient."""
    down = x[..., 1:, :-1] - x[..., :-1, :-1]
    right = x[..., :-1, 1:] - x[..., :-1, :-1]
    # The root has no slope at 0; a tiny constant under it, taken off again, gives it one.
    tiny = torch.finfo(x.dtype).eps ** 2
    length: Tensor = torch.sqrt(down.square() + right.square() + tiny) - tiny**0.5
    return length
