"""Overlap and mass alone (see `counts.py`), for sums of region losses on the CPU: fewer passes, for some memory.

    overlap[k] = sum of p_k where y = k        mass[k] = sum of p_k         over the valid pixels of an image

The probabilities of the whole batch are kept from the forward pass and become the gradient in place,
dL/dz_k = p_k (g_k - sum_j p_j g_j), so that no more memory is held than the gradient needs anyway. Where the backward
pass is asked for a second time they are computed anew.

    N images   K classes   P pixels
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from segwright.losses.sums import sum_by_label


def region_counts(
    logits: Float[Tensor, "N K H W"], labels: Int[Tensor, "N H W"]
) -> tuple[Float[Tensor, "N K"], Float[Tensor, "N K"]]:
    """Overlap and mass of each image and class, float32 (float64 of float64).

    Args:
        logits: any float type; planes or channels last in memory.
        labels: label K where a pixel counts nowhere.
    """
    overlap, mass = _RegionCounts.apply(logits, labels)
    return overlap, mass


class _RegionCounts(torch.autograd.Function):
    """Differentiable once by the logits."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        probs, num_classes = _probs(logits), logits.shape[1]
        true_p = probs.gather(1, _true(labels, num_classes)).squeeze(1)
        valid = (labels < num_classes).flatten(1).to(probs.dtype)
        mass = torch.stack([torch.mv(p, counted) for p, counted in zip(probs, valid, strict=True)])
        ctx.save_for_backward(logits, labels)
        ctx.probs = probs, true_p
        return sum_by_label(true_p.view(labels.shape), labels, num_classes), mass

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, by_overlap: Tensor, by_mass: Tensor) -> tuple[Tensor, None]:
        logits, labels = ctx.saved_tensors
        num_classes = logits.shape[1]
        true = _true(labels, num_classes)
        kept, ctx.probs = ctx.probs, None
        probs = _probs(logits) if kept is None else kept[0]
        true_p = probs.gather(1, true).squeeze(1) if kept is None else kept[1]
        valid = (labels < num_classes).flatten(1)
        if not bool(valid.all()):
            probs.mul_(valid.unsqueeze(1))
            true_p = true_p * valid
        true_by_overlap, true_by_mass = (by.gather(1, true.squeeze(1)) for by in (by_overlap, by_mass))
        common = -true_p * true_by_overlap
        pixels_first = not probs.is_contiguous()
        for p, by, of_pixel in zip(probs, by_mass, common, strict=True):
            of_pixel -= torch.mv(p.t(), by)
            # In the order of the memory: p is a view of (P, K) where channels lie last.
            p.mul_((of_pixel[:, None] + by).t() if pixels_first else by[:, None] + of_pixel)
        at_true = true_p * (true_by_mass + true_by_overlap + common)
        probs.scatter_(1, true, at_true.unsqueeze(1))
        return _as_images(probs, like=logits).to(logits.dtype), None


def _probs(logits: Tensor) -> Float[Tensor, "N K P"]:
    """Softmax in the order of the memory of the logits."""
    z = logits.to(torch.float64 if logits.dtype == torch.float64 else torch.float32)
    if z.is_contiguous():
        return torch.softmax(z.flatten(2), dim=1)
    return torch.softmax(z.permute(0, 2, 3, 1).flatten(1, 2), dim=2).transpose(1, 2)


def _as_images(probs: Tensor, *, like: Tensor) -> Float[Tensor, "N K H W"]:
    """(N, K, P) as (N, K, H, W), a view."""
    images, num_classes, rows, columns = like.shape
    if probs.is_contiguous():
        return probs.view(like.shape)
    return probs.transpose(1, 2).view(images, rows, columns, num_classes).permute(0, 3, 1, 2)


def _true(labels: Tensor, num_classes: int) -> Int[Tensor, "N 1 P"]:
    """The true class of each pixel; any class where a pixel counts nowhere."""
    return labels.flatten(1).clamp(max=num_classes - 1).unsqueeze(1)
