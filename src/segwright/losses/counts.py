"""Soft counts: the few sums per class that every loss here is a reading of, taken in one pass over the logits.

With p = softmax(logits) and y the true class of a pixel, over all valid pixels of the batch:

    nll[k]      = sum of -log p_y where y = k        overlap[k] = sum of p_k where y = k   (soft true positives, TP)
    log_mass[k] = sum of log p_k                     mass[k]    = sum of p_k               (TP + soft false positives)
    count[k]    = number of pixels with y = k        (TP + soft false negatives)

Cross-entropy reads `nll`; Dice, Jaccard and Tversky read `overlap`, `mass` and `count`. The gradient of any function of
these sums is dL/dz_k = p_k (g_k - sum_j p_j g_j), with g the gradient by p, so the backward pass is written by hand: it
needs the log-sum-exp of a pixel, not the probabilities, and works on pieces that stay in the processor's cache. Against
a chain of autograd operations this keeps no (N, K, H, W) tensor but the logits themselves. Everything is computed in
float32, also under autocast.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from segwright.errors import MaskError
from segwright.types import IGNORE_INDEX, Logits, Masks

_CPU_PIECE_BYTES = 1 << 20
_DEVICE_PIECE_BYTES = 1 << 30
_Piece = tuple[slice, slice]


@dataclass(frozen=True)
class SoftCounts:
    """Sums per class over the valid pixels of a batch; every tensor is (K,).

    Attributes:
        nll, log_mass, overlap, mass: see the file's head; zeros where they were not asked for.
        count: true pixels of each class, 0 for ignored classes.
        weight: weight of each class in cross-entropy, 0 for ignored classes.
        kept: True for classes that take part, False for ignored ones.
        label_smoothing: share of the target that is spread over the classes that take part.
    """

    nll: Tensor
    log_mass: Tensor
    overlap: Tensor
    mass: Tensor
    count: Tensor
    weight: Tensor
    kept: Tensor
    label_smoothing: float


def soft_counts(
    logits: Logits, masks: Masks, *, kept: Tensor, weight: Tensor, label_smoothing: float = 0.0, region: bool = True
) -> SoftCounts:
    """Count softly, once for all losses.

    Args:
        logits: (N, K, H, W), any float type and memory format.
        masks: (N, H, W) labels 0..K-1 or 255. On the CPU other labels are refused; on a device, where looking would
            wait for it, they count nowhere.
        kept: (K,) bool; true pixels of the other classes count nowhere.
        weight: (K,) float, class weights of cross-entropy.
        label_smoothing: 0 to 1; `log_mass` is only counted above 0.
        region: whether `overlap` and `mass` are wanted.

    Raises:
        MaskError: a label is neither a class nor 255, or the sizes differ.
    """
    num_classes = logits.shape[1]
    if masks.shape != (logits.shape[0], *logits.shape[2:]):
        problem = f"masks {tuple(masks.shape)} for logits {tuple(logits.shape)}"
        raise MaskError(problem, mend="give masks of the logits' size")
    if masks.device.type == "cpu":
        _check_labels(masks, num_classes)
    # Ignored pixels get the label K: one more bin, thrown away after counting.
    table = torch.full((IGNORE_INDEX + 1,), num_classes, dtype=torch.int64, device=masks.device)
    table[:num_classes] = torch.where(kept, torch.arange(num_classes, device=masks.device), num_classes)
    labels = table.index_select(0, masks.reshape(-1).long()).view(masks.shape)
    dtype = torch.float64 if logits.dtype == torch.float64 else torch.float32
    count = _sum_by_label(None, labels, num_classes).to(dtype)
    nll, log_mass, overlap, mass = _SoftCounts.apply(logits, labels, label_smoothing > 0, region)
    return SoftCounts(nll, log_mass, overlap, mass, count, weight.to(dtype) * kept, kept, label_smoothing)


class _SoftCounts(torch.autograd.Function):
    """(nll, log_mass, overlap, mass) of (logits, labels 0..K), differentiable once by the logits."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, labels: Tensor, smooth: bool, region: bool) -> tuple[Tensor, ...]:
        num_classes = logits.shape[1]
        dtype = torch.float64 if logits.dtype == torch.float64 else torch.float32
        nll, logsumexp = (torch.empty(labels.shape, dtype=dtype, device=logits.device) for _ in range(2))
        log_mass, mass = (torch.zeros(num_classes, dtype=dtype, device=logits.device) for _ in range(2))
        for i, r in _pieces(logits):
            z = logits[i, :, r].to(dtype)
            log_p = torch.log_softmax(z, dim=1)
            true = labels[i, r].clamp(max=num_classes - 1).unsqueeze(1)
            log_p_true = log_p.gather(1, true)
            logsumexp[i, r] = (z.gather(1, true) - log_p_true).squeeze(1)
            nll[i, r] = log_p_true.neg_().squeeze(1)
            valid = (labels[i, r] < num_classes).unsqueeze(1) if smooth or region else true
            if smooth:
                log_mass += torch.where(valid, log_p, 0.0).sum((0, 2, 3))
            if region:
                mass += log_p.exp_().mul_(valid).sum((0, 2, 3))
        ctx.save_for_backward(logits, labels, logsumexp)
        ctx.set_materialize_grads(False)
        overlap = _sum_by_label(torch.exp(-nll), labels, num_classes) if region else torch.zeros_like(mass)
        return _sum_by_label(nll, labels, num_classes), log_mass, overlap, mass

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        logits, labels, logsumexp = ctx.saved_tensors
        num_classes = logits.shape[1]
        by_nll, by_log_mass, by_overlap, by_mass = (None if g is None else g.to(logsumexp.dtype) for g in grads)
        by_nll, by_overlap = (_with_ignored_bin(g) for g in (by_nll, by_overlap))
        result = torch.empty_like(logits)
        for i, r in _pieces(logits):
            label = labels[i, r]
            true = label.clamp(max=num_classes - 1).unsqueeze(1)
            p = (logits[i, :, r].to(logsumexp.dtype) - logsumexp[i, r].unsqueeze(1)).contiguous().exp_()
            # dL/dz_k = p_k * (by_mass_k + common) + by_log_mass_k + (at the true class) at_true
            at_true = torch.zeros_like(logsumexp[i, r])
            if by_overlap is not None:
                at_true += p.gather(1, true).squeeze(1) * by_overlap.take(label)
            if by_nll is not None:
                at_true -= by_nll.take(label)
            common = -at_true
            if by_log_mass is not None:
                common -= by_log_mass.sum()
            if by_mass is not None:
                grad = p * by_mass.view(-1, 1, 1)
                common -= grad.sum(1)
                grad.addcmul_(p, common.unsqueeze(1))
            else:
                grad = p.mul_(common.unsqueeze(1))
            if by_log_mass is not None:
                grad += by_log_mass.view(-1, 1, 1)
            grad.scatter_add_(1, true, at_true.unsqueeze(1)).mul_((label < num_classes).unsqueeze(1))
            result[i, :, r] = grad
        return result, None, None, None


def _pieces(logits: Tensor) -> Iterator[_Piece]:
    """(images, rows) slices: whole images where small, else rows of one, so that a float32 piece fits the cache."""
    images, classes, rows, columns = logits.shape
    on_cpu = logits.device.type == "cpu"
    budget = _CPU_PIECE_BYTES * torch.get_num_threads() if on_cpu else _DEVICE_PIECE_BYTES
    row_bytes = 4 * classes * columns
    if row_bytes * rows <= budget:
        step = max(1, budget // max(1, row_bytes * rows))
        for start in range(0, images, step):
            yield slice(start, start + step), slice(0, rows)
        return
    step = max(1, budget // row_bytes)
    for image in range(images):
        for start in range(0, rows, step):
            yield slice(image, image + 1), slice(start, start + step)


def _sum_by_label(values: Tensor | None, labels: Tensor, num_classes: int) -> Tensor:
    """(K,) sums of a value a pixel (of ones where None) by label; label K is dropped."""
    bins = num_classes + 1
    if labels.device.type == "cpu":
        weights = None if values is None else values.reshape(-1).double()
        total = torch.bincount(labels.reshape(-1), weights=weights, minlength=bins)[:num_classes]
        return total if values is None else total.to(values.dtype)
    # `bincount` waits for the device; one set of bins an image also keeps float32 sums short.
    per_image = labels + torch.arange(len(labels), device=labels.device).view(-1, 1, 1) * bins
    ones = torch.ones((), device=labels.device).expand(labels.shape) if values is None else values
    total = torch.zeros(len(labels) * bins, dtype=ones.dtype, device=labels.device)
    total.scatter_add_(0, per_image.reshape(-1), ones.reshape(-1))
    return total.view(len(labels), bins).sum(0)[:num_classes]


def _with_ignored_bin(grad: Tensor | None) -> Tensor | None:
    return None if grad is None else torch.cat([grad, grad.new_zeros(1)])


def _check_labels(masks: Tensor, num_classes: int) -> None:
    if masks.numel() == 0:
        return
    low, high = (int(bound) for bound in masks.aminmax())
    counts = torch.bincount(masks.reshape(-1), minlength=IGNORE_INDEX + 1) if low >= 0 else None
    if counts is None or high > IGNORE_INDEX or bool(counts[num_classes:IGNORE_INDEX].any()):
        bad = masks[(masks < 0) | ((masks >= num_classes) & (masks != IGNORE_INDEX))]
        problem = f"label {int(bad[0])} in a batch of {num_classes} classes"
        raise MaskError(problem, mend=f"use labels 0 to {num_classes - 1}, and {IGNORE_INDEX} for void")
