"""Confusion counts of a batch, image by image, where its tensors are.

On a CPU they are OpenCV's histogram of two bytes; on a GPU no step waits for the host.

    N images   K classes   H, W rows and columns in pixels   confusion[i, j] pixels of true class i predicted as j
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
from jaxtyping import Int64, Integer
from torch import Tensor

from segwright.errors import MaskError
from segwright.metrics import EXACT_IN_FLOAT32
from segwright.types import IGNORE_INDEX


def confusion_per_image(
    pred: Integer[Tensor, "N H W"], masks: Integer[Tensor, "N H W"], *, num_classes: int
) -> Int64[Tensor, "N K K"]:
    """Count (true class, predicted class) pairs of each image, on the tensors' device; truth 255 counts nowhere.

    On the CPU a label that is neither a class nor 255 is refused. On a GPU it counts nowhere: looking would make the
    GPU wait.

    Raises:
        MaskError: a true label is K..254 (CPU only).
    """
    assert pred.shape == masks.shape, f"{tuple(pred.shape)} predictions for {tuple(masks.shape)} masks"
    if pred.device.type == "cpu":
        return _count_on_cpu(pred, masks, num_classes=num_classes)
    return _count_on_device(pred, masks, num_classes=num_classes)


def _count_on_cpu(pred: Tensor, masks: Tensor, *, num_classes: int) -> Tensor:
    """OpenCV's two-dimensional histogram of bytes: ten times as fast as a bincount of 64-bit codes."""
    guess = pred.to(torch.uint8).flatten(1).numpy()
    truth = masks.to(torch.uint8).flatten(1).numpy()
    assert not guess.size or int(guess.max()) < num_classes, f"a prediction of {guess.max()} with {num_classes} classes"
    counts = np.zeros((len(truth), num_classes, num_classes), dtype=np.int64)
    bins, edges = [num_classes, num_classes], [0, num_classes, 0, num_classes]
    for row, one, other in zip(counts, truth, guess, strict=True):
        for start in range(0, len(one), EXACT_IN_FLOAT32):
            piece = slice(start, start + EXACT_IN_FLOAT32)
            row += cv2.calcHist([one[piece], other[piece]], [0, 1], None, bins, edges).astype(np.int64)
    if counts.sum() != np.count_nonzero(truth != IGNORE_INDEX):
        wrong = np.setdiff1d(truth, [*range(num_classes), IGNORE_INDEX])
        raise MaskError(
            f"label {wrong[0]} in a mask of {num_classes} classes (0 to {num_classes - 1}, {IGNORE_INDEX} for void)",
            mend="name all classes, or list the value among void_values",
        )
    return torch.from_numpy(counts)


def _count_on_device(pred: Tensor, masks: Tensor, *, num_classes: int) -> Tensor:
    """Additions into one table, no step of which needs the host (a bincount would ask for its maximum)."""
    cells = num_classes * num_classes + 1
    code = torch.where(masks < num_classes, masks.long() * num_classes + pred, cells - 1)
    code += torch.arange(len(pred), device=pred.device)[:, None, None] * cells
    counts = torch.zeros(len(pred) * cells, dtype=torch.int64, device=pred.device)
    counts.scatter_add_(0, code.view(-1), torch.ones((), dtype=torch.int64, device=pred.device).expand(code.numel()))
    return counts.view(-1, cells)[:, :-1].reshape(-1, num_classes, num_classes)
