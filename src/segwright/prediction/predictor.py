"""Predict: any image in, its mask out, at the image's own size.

An image is fitted to what the model was trained on (channels, bit depth, working size), images of one size share a
batch, and the labels are read at the size of the input. Memory stays constant however many images there are, and images
that are large go through the model in tiles.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

import numpy as np
import torch
from jaxtyping import Float, Shaped, UInt8
from torch import Tensor
from torch.nn import functional as F

from segwright.augment.matching import Matching, matched
from segwright.bundle import Bundle, load_bundle
from segwright.data.tiles import TILE_PX, check_tile, is_large
from segwright.errors import DataError, RecipeError
from segwright.hardware import PrecisionChoice, autocast, choose_device, choose_precision, is_out_of_memory
from segwright.metrics import count_labels
from segwright.prediction.fitting import AnyImage, as_image, fit, reference_in, scale_down
from segwright.prediction.labelling import label_large
from segwright.prediction.tta import Flips, averaged, symmetries_of
from segwright.types import ImageArray

OfAnySize = Shaped[np.ndarray, "_ _ _"]
"""Images of a sequence differ in size, so their dimensions share no letters."""

BATCH_PIXELS = 4_000_000
"""A batch holds no more pixels than this (but always one image)."""


@dataclass(frozen=True)
class Prediction:
    """What the model sees in one image.

    Attributes:
        mask: labels 0..K-1 at the size of the image.
        probs: the probability of every class, where asked for.
        shares: the share of the image that each class takes, by name; sums to 1.
        prevalent: the name of the class that takes the largest share.
    """

    mask: UInt8[np.ndarray, "H W"]
    probs: Float[np.ndarray, "K H W"] | None
    shares: dict[str, float]
    prevalent: str


@final
class Predictor:
    """A model in use on one device.

    Args:
        bundle: what `load_bundle` gives.
        device: auto, cpu, cuda, cuda:1 ...
        precision: auto takes the fastest number format that is safe on the device.
        batch_size: the most images that go through the network at once.
        tile_px: images of more than `data.tiles.LARGE_IMAGE_PX` pixels are labelled in overlapping tiles of this side;
            None labels them whole.
        match: bring the tones of every image to those of the training images first (see `segwright.augment.matching`):
            by mean and deviation, or by the whole histogram. Of a large image this makes a copy.
        flips: average the probabilities over mirrored and turned copies (see `segwright.prediction.tta`), at 2, 4 or 8
            times the time.

    Raises:
        RecipeError: the device is not there, batches or tiles are too small, the bundle keeps no tones to match, or
            there are no such flips.
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        device: str = "auto",
        precision: PrecisionChoice = "auto",
        batch_size: int = 8,
        tile_px: int | None = TILE_PX,
        match: Matching = "none",
        flips: Flips = "none",
    ) -> None:
        if batch_size < 1:
            raise RecipeError(f"a batch of {batch_size} images", mend="use 1 or more")
        check_tile(tile_px)
        self.classes = bundle.classes
        self.info = bundle.info
        self.device = choose_device(device)
        self.precision = choose_precision(precision, device=self.device)
        self.batch_size = batch_size
        self.tile_px = tile_px
        self.model = bundle.model.to(self.device).to(memory_format=torch.channels_last).eval()
        self._match: Matching = match
        self._reference = reference_in(bundle.info, match=match)
        self._symmetries = symmetries_of(flips)
        self._working_size_px: int | None = (bundle.info.get("input") or {}).get("working_size_px")

    def predict(self, image: AnyImage, *, probs: bool = False) -> Prediction:
        """Label one image.

        Args:
            image: see `AnyImage`.
            probs: also give the probability of every class.

        Raises:
            DataError: the image cannot be read or does not fit what the model was trained on.
        """
        return next(self.predict_many([image], probs=probs))

    def predict_many(self, images: Iterable[AnyImage], *, probs: bool = False) -> Iterator[Prediction]:
        """Label images one after the other, in their order; see `predict`."""
        window: list[ImageArray] = []
        pixels = 0
        for image in images:
            array = as_image(image, in_channels=self.model.spec.in_channels)
            large = is_large(*array.shape[1:], tile_px=self.tile_px)
            if window and (large or len(window) == self.batch_size or pixels + _area(array) > BATCH_PIXELS):
                yield from self._window(window, probs=probs)
                window, pixels = [], 0
            if large:
                yield self._large(array, probs=probs)
                continue
            window.append(self._matched(fit(array, self.model.spec)))
            pixels += _area(array)
        if window:
            yield from self._window(window, probs=probs)

    def _window(self, images: Sequence[OfAnySize], *, probs: bool) -> Iterator[Prediction]:
        """Images of one size share a batch; the order stays."""
        by_size: dict[tuple[int, ...], list[int]] = {}
        for position, image in enumerate(images):
            by_size.setdefault(image.shape, []).append(position)
        results: dict[int, Prediction] = {}
        for positions in by_size.values():
            batch = self._batch([images[position] for position in positions], probs=probs)
            results.update(zip(positions, batch, strict=True))
        for position in range(len(images)):
            yield results.pop(position)

    def _large(self, image: ImageArray, *, probs: bool) -> Prediction:
        assert self.tile_px is not None, "without tiles, no image is large"
        if self._reference is not None:
            image = self._matched(fit(image, self.model.spec))
        mask, values = label_large(
            lambda: image,
            spec=self.model.spec,
            logits_of=self._logits,
            longer_side_px=self._working_size_px,
            tile_px=self.tile_px,
            batch_size=self.batch_size,
            probs=probs,
        )
        return self._prediction(mask, values)

    def _matched(self, image: ImageArray) -> ImageArray:
        return image if self._reference is None else matched(image, self._reference, how=self._match)

    def _batch(self, images: Sequence[OfAnySize], *, probs: bool) -> list[Prediction]:
        height, width = images[0].shape[1:]
        scaled = [scale_down(image, longer_side_px=self._working_size_px) for image in images]
        try:
            logits = self._logits(torch.from_numpy(np.stack(scaled)))
            if logits.shape[-2:] != (height, width):
                logits = F.interpolate(logits, size=(height, width), mode="bilinear", align_corners=False)
            masks = logits.argmax(1).to(torch.uint8).cpu().numpy()
            values = logits.softmax(1).cpu().numpy() if probs else [None] * len(images)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        else:
            return [self._prediction(mask, value) for mask, value in zip(masks, values, strict=True)]
        # Not inside `except`: the error would hold what the forward pass has left in memory.
        return self._in_halves(images, probs=probs)

    @torch.inference_mode()
    def _logits(self, images: Tensor) -> Tensor:
        return averaged(self._answer, images.to(self.device), over=self._symmetries)

    def _answer(self, images: Tensor) -> Tensor:
        with autocast(self.precision, device=self.device):
            logits: Tensor = self.model(images.contiguous(memory_format=torch.channels_last))
        return logits.float()

    def _in_halves(self, images: Sequence[OfAnySize], *, probs: bool) -> list[Prediction]:
        if len(images) == 1:
            _, height, width = images[0].shape
            mend = "predict with --device cpu, or give smaller images"
            raise DataError(f"an image of {height} x {width} pixels does not fit into the memory", mend=mend)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        middle = len(images) // 2
        return self._batch(images[:middle], probs=probs) + self._batch(images[middle:], probs=probs)

    def _prediction(self, mask: UInt8[np.ndarray, "H W"], probs: Float[np.ndarray, "K H W"] | None) -> Prediction:
        counts = count_labels(mask)[: self.classes.num_classes]
        shares = {name: float(count / mask.size) for name, count in zip(self.classes.names, counts, strict=True)}
        return Prediction(mask=mask, probs=probs, shares=shares, prevalent=self.classes.names[int(counts.argmax())])


def load(
    path: Path,
    *,
    device: str = "auto",
    precision: PrecisionChoice = "auto",
    batch_size: int = 8,
    tile_px: int | None = TILE_PX,
    match: Matching = "none",
    flips: Flips = "none",
) -> Predictor:
    """The predictor of a bundle or of a run.

    Raises:
        RunError: there is no bundle, or it is damaged.
        WeightsError: its weights do not fit.
        RecipeError: as for `Predictor`.
    """
    return Predictor(
        load_bundle(path),
        device=device,
        precision=precision,
        batch_size=batch_size,
        tile_px=tile_px,
        match=match,
        flips=flips,
    )


def _area(image: ImageArray) -> int:
    return int(image.shape[1] * image.shape[2])
