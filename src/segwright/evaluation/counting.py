"""Run a model over labelled images and count, image by image; large images go through in tiles.

What is held at a time is one batch, or of a large image its labels (one byte a pixel) and one batch of tiles.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor, nn

from segwright.augment.matching import Matching, matched
from segwright.bundle import Bundle
from segwright.confusion import confusion_per_image
from segwright.data.eval_loader import EvalLoader
from segwright.data.pack import Pack
from segwright.data.tiles import LARGE_IMAGE_PX, TILE_PX, is_large
from segwright.hardware import Precision, autocast, choose_precision
from segwright.metrics import boundary_counts, boundary_tolerance_px
from segwright.prediction.fitting import fit, reference_in, scale_down
from segwright.prediction.labelling import in_halves, label_large
from segwright.prediction.tta import Flips, averaged, symmetries_of
from segwright.tensors import Batch, Masks
from segwright.types import IGNORE_INDEX, ClassSet, MaskArray


@dataclass(frozen=True)
class Counted:
    """What a model makes of one image.

    Attributes:
        index: position in the pack.
        confusion: counts of its pixels.
        boundary: of its contours, see `metrics.boundary_counts`.
        pred: the labels themselves.
    """

    index: int
    confusion: Int64[np.ndarray, "K K"]
    boundary: Int64[np.ndarray, "K 4"]
    pred: UInt8[np.ndarray, "H W"]


@dataclass
class Network:
    """A model on its device, and how long it has computed.

    Attributes:
        bundle: the model and its classes.
        device: where it computes.
        batch_size: the most images or tiles that go through at once.
        tile_px: side of the tiles of large images; None for none.
        match: bring the tones of every image to those of the training images first.
        flips: average the probabilities over mirrored and turned copies.
        precision: number format.
        seconds: spent on labelling so far.
    """

    bundle: Bundle
    device: torch.device
    batch_size: int
    tile_px: int | None = TILE_PX
    match: Matching = "none"
    flips: Flips = "none"
    precision: Precision = field(init=False)
    seconds: float = 0.0

    def __post_init__(self) -> None:
        self.bundle.model.to(self.device).eval()
        self.precision = choose_precision("auto", device=self.device)
        self._reference = reference_in(self.bundle.info, match=self.match)
        self._symmetries = symmetries_of(self.flips)
        self._longer_side_px: int | None = (self.bundle.info.get("input") or {}).get("working_size_px")

    def count(self, pack: Pack, indices: Sequence[int]) -> Iterator[Counted]:
        """Each of some labelled images, in whatever order is fast.

        Raises:
            DataError: an image does not fit the model or the memory.
            MaskError: a mask holds a label that the model has no class for.
        """
        classes = self.bundle.classes
        large = {i for i in indices if is_large(*pack.sizes[i].tolist(), tile_px=self.tile_px)}
        small = [i for i in indices if i not in large]
        for batch in EvalLoader(pack, small, batch_size=self.batch_size, device=self.device, tile_px=None):
            assert batch.masks is not None, "only labelled images are scored"
            pred = self._labels(batch)
            counts = confusion_per_image(pred, batch.masks, num_classes=classes.num_classes).cpu().numpy()
            for row, guess, i in zip(counts, pred.to(torch.uint8).cpu().numpy(), batch.index.tolist(), strict=True):
                yield Counted(i, row, contours(guess, _truth(pack, i), classes=classes), guess)
        for i in sorted(large):
            guess, truth = self._labels_of_large(pack, i), _truth(pack, i)
            row = confusion_in_strips(guess, truth, num_classes=classes.num_classes)
            yield Counted(i, row, contours(guess, truth, classes=classes), guess)

    def _labels(self, batch: Batch) -> Masks:
        """The labels (N, H, W) of a batch, at the batch's size."""
        started = time.perf_counter()
        size = (batch.images.shape[2], batch.images.shape[3])
        images = fitted(batch.images, self._adapted)
        pred = in_halves(lambda images: self._at_size(images, size), images)
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self.seconds += time.perf_counter() - started
        return pred

    def _adapted(self, image: np.ndarray) -> np.ndarray:
        toned = self._toned(fit(image, self.bundle.model.spec))
        return scale_down(toned, longer_side_px=self._longer_side_px)

    def _toned(self, image: np.ndarray) -> np.ndarray:
        return image if self._reference is None else matched(image, self._reference, how=self.match)

    def _labels_of_large(self, pack: Pack, i: int) -> UInt8[np.ndarray, "H W"]:
        started = time.perf_counter()
        assert self.tile_px is not None, "without tiles, no image is large"
        whole = None if self._reference is None else self._toned(fit(pack.image(i), self.bundle.model.spec))
        pred, _ = label_large(
            lambda: pack.image(i) if whole is None else whole,
            spec=self.bundle.model.spec,
            logits_of=self._logits,
            longer_side_px=self._longer_side_px,
            tile_px=self.tile_px,
            batch_size=self.batch_size,
        )
        self.seconds += time.perf_counter() - started
        return pred

    def _at_size(self, images: Tensor, size: tuple[int, int]) -> Tensor:
        logits = self._logits(images)
        if logits.shape[2:] != size:
            logits = nn.functional.interpolate(logits.float(), size=size, mode="bilinear")
        return logits.argmax(1)

    @torch.inference_mode()
    def _logits(self, images: Tensor) -> Tensor:
        return averaged(self._answer, images.to(self.device), over=self._symmetries)

    def _answer(self, images: Tensor) -> Tensor:
        with autocast(self.precision, device=self.device):
            logits: Tensor = self.bundle.model(images.contiguous(memory_format=torch.channels_last))
        return logits


def fitted(images: Tensor, adapted: Callable[[np.ndarray], np.ndarray]) -> Tensor:
    """A batch as the model takes it: other data may be gray, 16-bit or larger; nothing is done where it fits."""
    first = images[0].cpu().numpy()
    if adapted(first) is first:
        return images
    return torch.from_numpy(np.stack([adapted(image) for image in images.cpu().numpy()]))


def _truth(pack: Pack, i: int) -> MaskArray:
    mask = pack.mask(i)
    assert mask is not None, "only labelled images are scored"
    return mask


def confusion_in_strips(
    pred: UInt8[np.ndarray, "H W"], mask: UInt8[np.ndarray, "H W"], *, num_classes: int
) -> Int64[np.ndarray, "K K"]:
    """`confusion_per_image` of one image, without a copy of it.

    Raises:
        MaskError: a true label is no class.
    """
    total = np.zeros((num_classes, num_classes), dtype=np.int64)
    rows = max(1, LARGE_IMAGE_PX // mask.shape[1])
    for top in range(0, len(mask), rows):
        pair = [torch.from_numpy(labels[top : top + rows].copy())[None] for labels in (pred, mask)]
        total += confusion_per_image(pair[0], pair[1], num_classes=num_classes)[0].numpy()
    return total


def contours(
    pred: UInt8[np.ndarray, "H W"], mask: UInt8[np.ndarray, "H W"], *, classes: ClassSet
) -> Int64[np.ndarray, "K 4"]:
    """Contour counts under the declared rules: an ignored class is void."""
    if classes.ignore_in_score:
        table = np.arange(256, dtype=np.uint8)
        table[list(classes.ignore_in_score)] = IGNORE_INDEX
        mask = cv2.LUT(mask, table)
    tolerance = boundary_tolerance_px(*mask.shape)
    return boundary_counts(pred, mask, num_classes=classes.num_classes, tolerance_px=tolerance)
