"""Distances of pixels to the borders in a mask, for losses that look at outlines.

Exact Euclidean distances by OpenCV (Felzenszwalb and Huttenlocher 2012, https://doi.org/10.4086/toc.2012.v008a019), on
the CPU, an image and class at a time: a border of a mask is nothing that gradients pass through.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torch import Tensor

FAR_PX = 1e4
"""The distance to a border where the image has none."""


def signed_distances(labels: Tensor, *, num_classes: int) -> Tensor:
    """(N, K, H, W) float32 pixels to the border of each class, positive outside it; 0 where an image lacks the class.

    As Kervadec et al. have it: from a pixel outside to the nearest one inside, and from a pixel inside 1 less than to
    the nearest one outside, so that the innermost ring of a region is at 0.

    Args:
        labels: (N, H, W), label K where a pixel counts nowhere; such pixels are outside of every class.
        num_classes: K.
    """
    maps = np.zeros((len(labels), num_classes, *labels.shape[1:]), dtype=np.float32)
    for image, label in zip(maps, labels.cpu().numpy(), strict=True):
        for k in np.unique(label):
            if k == num_classes:
                continue
            inside = (label == k).astype(np.uint8)
            outward = _distance(1 - inside)
            image[k] = outward if inside.all() else np.where(inside, 1 - _distance(inside), outward)
    return torch.from_numpy(maps).to(labels.device)


def edge_distances(labels: Tensor, *, num_classes: int) -> Tensor:
    """(N, H, W) float32 pixels to the nearest pixel that touches another label; `FAR_PX` where none does.

    Args:
        labels: (N, H, W), label K where a pixel counts nowhere; the outline of such pixels is no border.
        num_classes: K.
    """
    maps = np.full(labels.shape, FAR_PX, dtype=np.float32)
    for image, label in zip(maps, labels.cpu().numpy(), strict=True):
        edges = _edges(label, void=num_classes)
        if edges.any():
            image[...] = _distance(1 - edges)
    return torch.from_numpy(maps).to(labels.device)


def _edges(label: np.ndarray, *, void: int) -> np.ndarray:
    edges = np.zeros(label.shape, dtype=np.uint8)
    for before, after in ((np.s_[:-1], np.s_[1:]), (np.s_[:, :-1], np.s_[:, 1:])):
        differ = (label[before] != label[after]) & (label[before] != void) & (label[after] != void)
        edges[before] |= differ
        edges[after] |= differ
    return edges


def _distance(inside: np.ndarray) -> np.ndarray:
    """Pixels from each 1 to the nearest 0."""
    return cv2.distanceTransform(np.ascontiguousarray(inside), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
