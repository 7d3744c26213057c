"""Sums of a value a pixel by image and label."""

from __future__ import annotations

import torch
from torch import Tensor


def sum_by_label(values: Tensor | None, labels: Tensor, num_classes: int) -> Tensor:
    """(N, K) sums of a value a pixel (of ones where None) by image and label; label K is dropped."""
    bins = num_classes + 1
    images = len(labels)
    place = labels + torch.arange(images, device=labels.device).view(-1, 1, 1) * bins
    if labels.device.type == "cpu":
        weights = None if values is None else values.reshape(-1).double()
        total = torch.bincount(place.reshape(-1), weights=weights, minlength=images * bins)
        total = total.view(images, bins)[:, :num_classes]
        return total if values is None else total.to(values.dtype)
    # `bincount` waits for the device.
    ones = torch.ones((), device=labels.device).expand(labels.shape) if values is None else values
    total = torch.zeros(images * bins, dtype=ones.dtype, device=labels.device)
    total.scatter_add_(0, place.reshape(-1), ones.reshape(-1))
    return total.view(images, bins)[:, :num_classes]
