"""Soft counts: the few sums per image and class that most losses here are a reading of, taken in one pass.

With p = softmax(logits) and y the true class of a pixel, over the valid pixels of an image:

    nll[k]      = sum of -log p_y where y = k        overlap[k] = sum of p_k where y = k   (soft true positives, TP)
    log_mass[k] = sum of log p_k                     mass[k]    = sum of p_k               (TP + soft false positives)
    count[k]    = number of pixels with y = k        (TP + soft false negatives)
    focal[g, k] = sum of (1 - p_y)^g * -log p_y where y = k, for each exponent g that is asked for
    edge[k]     = sum of e * -log p_y where y = k, with a weight e for every pixel

Cross-entropy reads `nll`; Dice, Jaccard and Tversky read `overlap`, `mass` and `count`. The gradient of any function of
these sums is dL/dz_k = p_k (g_k - sum_j p_j g_j), with g the gradient by p, so the backward pass is written by hand: it
needs the log-sum-exp of a pixel, not the probabilities, and works on pieces that stay in the processor's cache. Against
a chain of autograd operations this keeps no (N, K, H, W) tensor but the logits themselves. Everything is computed in
float32, also under autocast.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from segwright.errors import MaskError
from segwright.losses.region_counts import region_counts
from segwright.losses.sums import sum_by_label
from segwright.tensors import Logits, Masks
from segwright.types import IGNORE_INDEX

_CPU_PIECE_BYTES = 1 << 20
_DEVICE_PIECE_BYTES = 1 << 30
_SMALLEST = 1e-12
_Piece = tuple[slice, slice]

Total = Callable[[Tensor], Tensor]
"""Gives the sum of a tensor over all processes, and passes gradients back through it."""


@dataclass(frozen=True)
class SoftCounts:
    """Sums per row and class over valid pixels; every tensor is (M, K), a row an image or the whole batch.

    Attributes:
        nll, log_mass, overlap, mass, edge: see the file's head; zeros where they were not asked for.
        count: true pixels of each class, 0 for ignored classes.
        edge_count: sum of the pixel weights of `edge`.
        focal: (M, K) for each exponent that was asked for.
    """

    nll: Tensor
    log_mass: Tensor
    overlap: Tensor
    mass: Tensor
    count: Tensor
    edge: Tensor
    edge_count: Tensor
    focal: dict[float, Tensor]

    def over_batch(self, total: Total | None = None) -> SoftCounts:
        """All rows as one; `total` adds up the parts of a batch that other processes have."""
        plain = [self.nll, self.log_mass, self.overlap, self.mass, self.count, self.edge, self.edge_count]
        summed = torch.stack([*plain, *self.focal.values()]).sum(1, keepdim=True)
        if total is not None:
            summed = total(summed)
        nll, log_mass, overlap, mass, count, edge, edge_count = summed[: len(plain)].unbind()
        focal = dict(zip(self.focal, summed[len(plain) :].unbind(), strict=True))
        return SoftCounts(nll, log_mass, overlap, mass, count, edge, edge_count, focal)


@dataclass(frozen=True)
class Wanted:
    """Which sums are taken, beside `count`.

    Attributes:
        pixel: `nll`.
        smooth: `log_mass`.
        region: `overlap` and `mass`.
        gammas: exponents of `focal`.
    """

    pixel: bool = True
    smooth: bool = False
    region: bool = False
    gammas: tuple[float, ...] = ()


def labels_of(masks: Masks, logits: Logits, *, kept: Tensor) -> Tensor:
    """Masks with label K for every pixel that counts nowhere, (N, H, W) int64.

    Args:
        masks: (N, H, W) labels 0..K-1 or 255. On the CPU other labels are refused; on a device, where looking would
            wait for it, they count nowhere.
        logits: (N, K, H, W).
        kept: (K,) bool; true pixels of the other classes count nowhere.

    Raises:
        MaskError: a label is neither a class nor 255, or the sizes differ.
    """
    num_classes = logits.shape[1]
    if masks.shape != (logits.shape[0], *logits.shape[2:]):
        problem = f"masks {tuple(masks.shape)} for logits {tuple(logits.shape)}"
        raise MaskError(problem, mend="give masks of the logits' size")
    if masks.device.type == "cpu":
        _check_labels(masks, num_classes)
    table = torch.full((IGNORE_INDEX + 1,), num_classes, dtype=torch.int64, device=masks.device)
    table[:num_classes] = torch.where(kept, torch.arange(num_classes, device=masks.device), num_classes)
    return table.index_select(0, masks.reshape(-1).long()).view(masks.shape)


def soft_counts(logits: Logits, labels: Tensor, *, wanted: Wanted, edge_weight: Tensor | None = None) -> SoftCounts:
    """Count softly, once for all losses.

    Args:
        logits: (N, K, H, W), any float type and memory format.
        labels: (N, H, W) from `labels_of`.
        wanted: which sums.
        edge_weight: (N, H, W), a weight for every pixel, for `edge`.
    """
    num_classes = logits.shape[1]
    dtype = torch.float64 if logits.dtype == torch.float64 else torch.float32
    count = sum_by_label(None, labels, num_classes).to(dtype)
    if wanted == Wanted(pixel=False, region=True) and edge_weight is None and logits.device.type == "cpu":
        overlap, mass = region_counts(logits, labels)
        none = torch.zeros_like(count)
        return SoftCounts(none, none, overlap, mass, count, none, none, {})
    nll, log_mass, overlap, mass, edge, focal = _SoftCounts.apply(logits, labels, edge_weight, wanted)
    edge_count = torch.zeros_like(count)
    if edge_weight is not None:
        edge_count = sum_by_label(edge_weight.to(dtype), labels, num_classes)
    exponents = dict(zip(wanted.gammas, focal.unbind(), strict=True))
    return SoftCounts(nll, log_mass, overlap, mass, count, edge, edge_count, exponents)


class _SoftCounts(torch.autograd.Function):
    """(nll, log_mass, overlap, mass, edge, focal) of (logits, labels 0..K), differentiable once by the logits."""

    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, labels: Tensor, edge_weight: Tensor | None, wanted: Wanted
    ) -> tuple[Tensor, ...]:
        images, num_classes = logits.shape[:2]
        dtype = torch.float64 if logits.dtype == torch.float64 else torch.float32
        nll, logsumexp = (torch.empty(labels.shape, dtype=dtype, device=logits.device) for _ in range(2))
        log_mass, mass = (torch.zeros(images, num_classes, dtype=dtype, device=logits.device) for _ in range(2))
        for i, r in _pieces(logits):
            z = logits[i, :, r].to(dtype)
            log_p = torch.log_softmax(z, dim=1)
            true = labels[i, r].clamp(max=num_classes - 1).unsqueeze(1)
            log_p_true = log_p.gather(1, true)
            logsumexp[i, r] = (z.gather(1, true) - log_p_true).squeeze(1)
            nll[i, r] = log_p_true.neg_().squeeze(1)
            if wanted.smooth or wanted.region:
                valid = (labels[i, r] < num_classes).unsqueeze(1)
                if wanted.smooth:
                    log_mass[i] += torch.where(valid, log_p, 0.0).sum((2, 3))
                if wanted.region:
                    mass[i] += log_p.exp_().mul_(valid).sum((2, 3))
        ctx.save_for_backward(logits, labels, logsumexp, edge_weight)
        ctx.gammas = wanted.gammas
        ctx.set_materialize_grads(False)
        zeros = torch.zeros_like(mass)
        true_p = torch.exp(-nll) if wanted.region or wanted.gammas else nll
        overlap = sum_by_label(true_p, labels, num_classes) if wanted.region else zeros
        edge = zeros.clone() if edge_weight is None else sum_by_label(edge_weight.to(dtype) * nll, labels, num_classes)
        focal = [sum_by_label((1 - true_p) ** gamma * nll, labels, num_classes) for gamma in wanted.gammas]
        stacked = torch.stack(focal) if focal else zeros.new_zeros(0, images, num_classes)
        return sum_by_label(nll, labels, num_classes), log_mass, overlap, mass, edge, stacked

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        logits, labels, logsumexp, edge_weight = ctx.saved_tensors
        num_classes = logits.shape[1]
        cast = [None if grad is None else grad.to(logsumexp.dtype) for grad in grads]
        by_log_mass, by_mass = cast[1], cast[3]
        # Of sums over true classes: looked up by image and label, with a bin of zeros for ignored pixels.
        by_nll, by_overlap, by_edge, by_focal = (_with_ignored_bin(cast[place]) for place in (0, 2, 4, 5))
        result = torch.empty_like(logits)
        for i, r in _pieces(logits):
            label = labels[i, r]
            true = label.clamp(max=num_classes - 1).unsqueeze(1)
            p = (logits[i, :, r].to(logsumexp.dtype) - logsumexp[i, r].unsqueeze(1)).contiguous().exp_()
            # dL/dz_k = p_k * (by_mass_k + common) + by_log_mass_k + (at the true class) at_true
            at_true = torch.zeros_like(logsumexp[i, r])
            if by_overlap is not None or by_focal is not None:
                true_p = p.gather(1, true).squeeze(1)
                if by_overlap is not None:
                    at_true += true_p * _looked_up(by_overlap[i], label)
                if by_focal is not None:
                    for gamma, by in zip(ctx.gammas, by_focal, strict=True):
                        at_true += _focal_slope(true_p, gamma) * _looked_up(by[i], label)
            if by_nll is not None:
                at_true -= _looked_up(by_nll[i], label)
            if by_edge is not None and edge_weight is not None:
                at_true -= edge_weight[i, r] * _looked_up(by_edge[i], label)
            common = -at_true
            if by_log_mass is not None:
                common -= by_log_mass[i].sum(1)[:, None, None]
            if by_mass is not None:
                grad = p * by_mass[i, :, None, None]
                common -= grad.sum(1)
                grad.addcmul_(p, common.unsqueeze(1))
            else:
                grad = p.mul_(common.unsqueeze(1))
            if by_log_mass is not None:
                grad += by_log_mass[i, :, None, None]
            grad.scatter_add_(1, true, at_true.unsqueeze(1)).mul_((label < num_classes).unsqueeze(1))
            result[i, :, r] = grad
        return result, None, None, None


def _focal_slope(p: Tensor, gamma: float) -> Tensor:
    """The slope by p of (1 - p)^gamma * -log p, times p."""
    left = (1 - p).clamp(min=_SMALLEST)
    powered = left**gamma
    return gamma * powered / left * p * p.clamp(min=_SMALLEST).log() - powered


def _looked_up(table: Tensor, label: Tensor) -> Tensor:
    """The entry of each pixel: `table` (n, K + 1) by image and label."""
    bins = table.shape[1]
    if len(table) > 1:
        label = label + torch.arange(len(table), device=label.device).view(-1, 1, 1) * bins
    return table.take(label)


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


def _with_ignored_bin(grad: Tensor | None) -> Tensor | None:
    """One more column, of zeros; None also where there is nothing to look up."""
    if grad is None or grad.numel() == 0:
        return None
    return torch.cat([grad, grad.new_zeros(*grad.shape[:-1], 1)], dim=-1)


def _check_labels(masks: Tensor, num_classes: int) -> None:
    if masks.numel() == 0:
        return
    low, high = (int(bound) for bound in masks.aminmax())
    counts = torch.bincount(masks.reshape(-1), minlength=IGNORE_INDEX + 1) if low >= 0 else None
    if counts is None or high > IGNORE_INDEX or bool(counts[num_classes:IGNORE_INDEX].any()):
        bad = masks[(masks < 0) | ((masks >= num_classes) & (masks != IGNORE_INDEX))]
        problem = f"label {int(bad[0])} in a batch of {num_classes} classes"
        raise MaskError(problem, mend=f"use labels 0 to {num_classes - 1}, and {IGNORE_INDEX} for void")
