"""Predict: any image in, its mask out, at the image's own size.

An image is fitted to what the model was trained on (channels, bit depth, working size), images of one size share a
batch, and the labels are read at the size of the input. Memory stays constant however many images there are.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

import cv2
import numpy as np
import torch
from jaxtyping import Float, Shaped, UInt8
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from segwright.bundle import Bundle, load_bundle
from segwright.errors import DataError, RecipeError
from segwright.files import read_image
from segwright.hardware import PrecisionChoice, autocast, choose_device, choose_precision
from segwright.models import ModelSpec
from segwright.types import ImageArray

AnyImage = Shaped[np.ndarray, "..."] | Image.Image | Path | str
"""An array (H, W), (C, H, W) or (H, W, C), a Pillow image, or the path of a picture."""

OfAnySize = Shaped[np.ndarray, "_ _ _"]
"""Images of a sequence differ in size, so their dimensions share no letters."""

BATCH_PIXELS = 4_000_000
"""A batch holds no more pixels than this (but always one image)."""

_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as Pillow and OpenCV turn colours to gray
_DTYPES = {255.0: np.uint8, 65535.0: np.uint16, 1.0: np.float32}


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

    Raises:
        RecipeError: the device is not there, or the batch size is below one.
    """

    def __init__(
        self, bundle: Bundle, *, device: str = "auto", precision: PrecisionChoice = "auto", batch_size: int = 8
    ) -> None:
        if batch_size < 1:
            raise RecipeError(f"a batch of {batch_size} images", mend="use 1 or more")
        self.classes = bundle.classes
        self.info = bundle.info
        self.device = choose_device(device)
        self.precision = choose_precision(precision, device=self.device)
        self.batch_size = batch_size
        self.model = bundle.model.to(self.device).to(memory_format=torch.channels_last).eval()
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
            array = fit(as_image(image, in_channels=self.model.spec.in_channels), self.model.spec)
            if window and (len(window) == self.batch_size or pixels + _area(array) > BATCH_PIXELS):
                yield from self._window(window, probs=probs)
                window, pixels = [], 0
            window.append(array)
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

    def _batch(self, images: Sequence[OfAnySize], *, probs: bool) -> list[Prediction]:
        height, width = images[0].shape[1:]
        scaled = [scale_down(image, longer_side_px=self._working_size_px) for image in images]
        try:
            logits = self._logits(torch.from_numpy(np.stack(scaled)))
            if logits.shape[-2:] != (height, width):
                logits = F.interpolate(logits, size=(height, width), mode="bilinear", align_corners=False)
            masks = logits.argmax(1).to(torch.uint8).cpu().numpy()
            values = logits.softmax(1).cpu().numpy() if probs else [None] * len(images)
        except torch.OutOfMemoryError:
            return self._in_halves(images, probs=probs)
        return [self._prediction(mask, value) for mask, value in zip(masks, values, strict=True)]

    @torch.inference_mode()
    def _logits(self, images: Tensor) -> Tensor:
        on_device = images.to(self.device, memory_format=torch.channels_last)
        with autocast(self.precision, device=self.device):
            logits: Tensor = self.model(on_device)
        return logits.float()

    def _in_halves(self, images: Sequence[OfAnySize], *, probs: bool) -> list[Prediction]:
        if len(images) == 1:
            _, height, width = images[0].shape
            mend = "cut the image into pieces, or predict with --device cpu"
            raise DataError(f"an image of {height} x {width} pixels does not fit into the memory", mend=mend)
        torch.cuda.empty_cache()
        middle = len(images) // 2
        return self._batch(images[:middle], probs=probs) + self._batch(images[middle:], probs=probs)

    def _prediction(self, mask: UInt8[np.ndarray, "H W"], probs: Float[np.ndarray, "K H W"] | None) -> Prediction:
        counts = np.bincount(mask.ravel(), minlength=self.classes.num_classes)
        shares = {name: float(count / mask.size) for name, count in zip(self.classes.names, counts, strict=True)}
        return Prediction(mask=mask, probs=probs, shares=shares, prevalent=self.classes.names[int(counts.argmax())])


def load(path: Path, *, device: str = "auto", precision: PrecisionChoice = "auto", batch_size: int = 8) -> Predictor:
    """The predictor of a bundle or of a run.

    Raises:
        RunError: there is no bundle, or it is damaged.
        WeightsError: its weights do not fit.
    """
    return Predictor(load_bundle(path), device=device, precision=precision, batch_size=batch_size)


def as_image(image: AnyImage, *, in_channels: int) -> ImageArray:
    """Any image as (C, H, W). An array that could be read both ways is taken as (C, H, W).

    Raises:
        DataError: the array is empty, has no two or three axes, or no axis that could be the channels.
    """
    if isinstance(image, (str, Path)):
        return read_image(Path(image))
    if isinstance(image, Image.Image):
        image = np.asarray(image if image.mode in ("L", "RGB", "RGBA", "I;16", "F") else image.convert("RGB"))
    if image.ndim not in (2, 3) or image.size == 0:
        raise DataError(f"an array of shape {image.shape} is no image", mend="give (H, W), (C, H, W) or (H, W, C)")
    if image.ndim == 2:
        return image[None]
    usual = (in_channels,) if in_channels in (image.shape[0], image.shape[2]) else (1, 3, 4)
    if image.shape[0] in usual:
        return image
    if image.shape[2] in usual:
        return np.ascontiguousarray(image.transpose(2, 0, 1))
    raise DataError(
        f"an array of shape {image.shape} has no axis of {in_channels} channels", mend=f"give ({in_channels}, H, W)"
    )


def fit(image: Shaped[np.ndarray, "C0 H W"], spec: ModelSpec) -> ImageArray:
    """Turn an image into the channels and the bit depth that a model was trained on.

    Gray becomes colour by repetition, colour becomes gray by luma, an alpha channel is dropped.

    Raises:
        DataError: that is not possible without guessing.
    """
    channels, wanted = image.shape[0], spec.in_channels
    if channels == 4 and wanted in (1, 3):
        image, channels = image[:3], 3
    if channels == 1 and wanted == 3:
        image = np.repeat(image, 3, axis=0)
    elif channels == 3 and wanted == 1:
        gray = np.tensordot(np.array(_LUMA), image.astype(np.float64), axes=1)[None]
        image = gray.astype(image.dtype) if image.dtype.kind == "f" else np.rint(gray).astype(image.dtype)
    elif channels != wanted:
        mend = f"give images of {wanted} channels"
        raise DataError(f"the image has {channels} channels, the model takes {wanted}", mend=mend)
    return _fit_depth(image, scale=spec.scale)


def _fit_depth(image: ImageArray, *, scale: float) -> ImageArray:
    wanted = np.dtype(_DTYPES.get(float(scale), np.float32))
    if image.dtype == wanted:
        return image
    if image.dtype == np.uint8 and wanted == np.uint16:
        return image.astype(np.uint16) * np.uint16(257)
    if image.dtype == np.uint16 and wanted == np.uint8:
        return np.rint(image / 257).astype(np.uint8)
    if wanted == np.float32 and image.dtype.kind == "f":
        return image.astype(np.float32)
    mend = f"give the values in the range and type of the training images ({wanted})"
    raise DataError(f"the image holds {image.dtype}, the model was trained on {wanted}", mend=mend)


def scale_down(image: Shaped[np.ndarray, "C H0 W0"], *, longer_side_px: int | None) -> ImageArray:
    """Scale an image down by area so that its longer side is at most that; smaller ones are left alone."""
    _, height, width = image.shape
    if longer_side_px is None or max(height, width) <= longer_side_px:
        return image
    factor = longer_side_px / max(height, width)
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    return np.stack([cv2.resize(band, size, interpolation=cv2.INTER_AREA) for band in image])


def _area(image: ImageArray) -> int:
    return int(image.shape[1] * image.shape[2])
