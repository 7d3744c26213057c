"""A prediction beside its truth: all that a loss may look at, each thing computed once for all losses of a sum."""

from __future__ import annotations

from functools import cached_property
from typing import Literal, final

import torch
from torch import Tensor

from segwright.losses.counts import SoftCounts, Total, Wanted, soft_counts
from segwright.losses.distances import edge_distances, signed_distances
from segwright.tensors import Logits

Over = Literal["batch", "image"]


@final
class Comparison:
    """Logits and labels of one batch.

    Attributes:
        logits: (N, K, H, W).
        labels: (N, H, W), label K where a pixel counts nowhere.
        kept: (K,) True for classes that take part.
        weight: (K,) weight of each class in losses that weigh pixels, 0 for ignored classes.
        region_weight: (K,) the same in losses that weigh classes against one another.
        label_smoothing: share of the target that is spread over the classes that take part.
    """

    def __init__(
        self, logits: Logits, labels: Tensor, *, kept: Tensor, weight: Tensor, region_weight: Tensor,
        label_smoothing: float, wanted: Wanted, edges: tuple[float, float] | None, total: Total | None,
    ) -> None:  # fmt: skip
        dtype = torch.float64 if logits.dtype == torch.float64 else torch.float32
        self.logits, self.labels, self.kept, self.label_smoothing = logits, labels, kept, label_smoothing
        self.weight, self.region_weight = weight.to(dtype) * kept, region_weight.to(dtype) * kept
        self._dtype, self._wanted, self._edges, self._total = dtype, wanted, edges, total

    @cached_property
    def by_image(self) -> SoftCounts:
        """Counts of each image of this process."""
        edge_weight = None
        if self._edges is not None:
            strength, reach_px = self._edges
            edge_weight = 1 + strength * torch.exp(-((self.edge_distances / reach_px) ** 2) / 2)
        return soft_counts(self.logits, self.labels, wanted=self._wanted, edge_weight=edge_weight)

    @cached_property
    def by_batch(self) -> SoftCounts:
        """Counts of the batch, that of all processes together; one row."""
        return self.by_image.over_batch(self._total)

    def counts(self, over: Over) -> SoftCounts:
        return self.by_batch if over == "batch" else self.by_image

    @cached_property
    def probs(self) -> Tensor:
        """(N, K, H, W) softmax, for the losses that need it whole."""
        return torch.softmax(self.logits.to(self._dtype), dim=1)

    @cached_property
    def truth(self) -> Tensor:
        """(N, K, H, W) ones at the true class; all zeros where a pixel counts nowhere."""
        classes = torch.arange(self.logits.shape[1], device=self.labels.device).view(1, -1, 1, 1)
        return (self.labels.unsqueeze(1) == classes).to(self._dtype)

    @cached_property
    def valid(self) -> Tensor:
        """(N, H, W) bool."""
        return self.labels < self.logits.shape[1]

    @cached_property
    def edge_distances(self) -> Tensor:
        """(N, H, W) pixels to the nearest border between two labels."""
        return edge_distances(self.labels, num_classes=self.logits.shape[1]).to(self._dtype)

    @cached_property
    def signed_distances(self) -> Tensor:
        """(N, K, H, W) pixels to the border of each class, negative within it."""
        return signed_distances(self.labels, num_classes=self.logits.shape[1]).to(self._dtype)

    @cached_property
    def present_weight(self) -> Tensor:
        """(N, K) weights of the classes that an image holds, 0 for the others."""
        return torch.where(self.truth.flatten(2).any(2), self.region_weight, torch.zeros_like(self.region_weight))

    def ratio(self, part: Tensor, whole: Tensor) -> Tensor:
        """sum(part) / sum(whole) over all processes, 0 where the latter is 0."""
        sums = torch.stack([part.sum(), whole.sum().to(part.dtype)])
        if self._total is not None:
            sums = self._total(sums)
        return sums[0] / positive(sums[1])

    def mean_of_classes(self, values: Tensor, *, present: Tensor, over: Over) -> Tensor:
        """The mean of (M, K) values over the classes that are present, weighted, then over rows that have any."""
        weight = torch.where(present, self.region_weight, torch.zeros_like(self.region_weight))
        rows = weight.sum(1)
        means = (weight * torch.where(present, values, torch.zeros_like(values))).sum(1) / positive(rows)
        if over == "batch":  # one row that is the same in every process
            return means.sum()
        return self.ratio(means, rows > 0)


def positive(total: Tensor) -> Tensor:
    """`total`, or 1 where it is 0, so that an empty batch divides 0 by 1."""
    return torch.where(total > 0, total, torch.ones_like(total))
