"""Decode every image of a source once, in parallel, and write pixels, labels and measurements side by side.

A packed folder holds `images.bin` (all images as (H, W, C), one after the other), `masks.bin` (all masks as (H, W)
uint8), `index.npz` (sizes, places, counts) and `index.json` (ids, digests, notes). Images of one source get one number
of channels and one type here; nothing else is changed.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from segwright.data.ahead import in_order
from segwright.data.sources import Source
from segwright.errors import DataError
from segwright.files import write_arrays, write_json
from segwright.metrics import count_labels
from segwright.types import ImageArray, MaskArray, Sample

FORMAT_VERSION = 1
"""Packs of another version are packed anew."""

LABEL_VALUES = 256
WINDOW_PX = 1024
"""Neighbouring pixels are compared in the middle of an image, up to this many rows and columns."""


@dataclass(frozen=True)
class Decoded:
    """One image as it will be stored, and what was measured on the way."""

    image: np.ndarray  # (H, W, C)
    mask: MaskArray | None
    image_digest: str
    mask_digest: str
    class_pixels: np.ndarray  # (256,) int64
    neighbour_correlation: float


def decode(source: Source, sample: Sample, *, working_size_px: int | None) -> Decoded:
    """Read an image and its mask and scale them down to the working size.

    Raises:
        DataError: as `Source.read`.
    """
    raw, mask = source.read(sample)
    return measure(raw, mask, working_size_px=working_size_px)


def measure(raw: ImageArray, mask: MaskArray | None, *, working_size_px: int | None = None) -> Decoded:
    """What is stored of an image (C, H, W) of any numeric type and its mask."""
    image = storable(raw)
    image_digest = pixel_digest(image)
    mask_digest = "" if mask is None else pixel_digest(np.ascontiguousarray(mask))
    if working_size_px is not None and max(image.shape[:2]) > working_size_px:
        factor = working_size_px / max(image.shape[:2])
        width, height = (max(1, round(side * factor)) for side in image.shape[1::-1])
        image = _shrunk(image, size=(width, height))
        if mask is not None:
            mask = cv2.resize(mask, (width, height), interpolation=cv2.INTER_NEAREST_EXACT)
    counts = np.zeros(LABEL_VALUES, dtype=np.int64)
    if mask is not None:
        mask = np.ascontiguousarray(mask, dtype=np.uint8)
        counts = count_labels(mask)
    return Decoded(image, mask, image_digest, mask_digest, counts, neighbour_correlation(image))


def storable(raw: ImageArray) -> np.ndarray:
    """As contiguous (H, W, C) in uint8, uint16 or float32."""
    if raw.dtype not in (np.uint8, np.uint16, np.float32):
        whole = raw.dtype.kind in "iub" and raw.size > 0 and raw.min() >= 0 and raw.max() <= np.iinfo(np.uint16).max
        raw = raw.astype(np.uint16 if whole else np.float32)
    if raw.flags.c_contiguous and 1 < len(raw) <= 4:
        return np.asarray(cv2.merge(list(raw)))  # ten times faster than NumPy's transposed copy
    return np.ascontiguousarray(raw.transpose(1, 2, 0))


def pixel_digest(array: np.ndarray) -> str:
    total = hashlib.blake2b(f"{array.dtype.str}{array.shape}".encode(), digest_size=16)
    total.update(array.data)
    return total.hexdigest()


def _shrunk(image: np.ndarray, *, size: tuple[int, int]) -> np.ndarray:
    parts = [
        cv2.resize(np.ascontiguousarray(image[:, :, start : start + 4]), size, interpolation=cv2.INTER_AREA)
        for start in range(0, image.shape[2], 4)
    ]
    return np.concatenate([part.reshape(size[1], size[0], -1) for part in parts], axis=2)


def neighbour_correlation(image: np.ndarray) -> float:
    """Mean Pearson correlation of horizontal and of vertical neighbours of the gray image (H, W, C).

    About 0 for noise and above 0.5 for photos; 1 for a constant image, which is no noise.
    """
    top, left = (max(0, (side - WINDOW_PX) // 2) for side in image.shape[:2])
    middle = image[top : top + WINDOW_PX, left : left + WINDOW_PX]
    channels = middle.shape[2]
    gray = middle.astype(np.float32) @ np.full(channels, 1 / channels, dtype=np.float32)
    found = []
    for first, second in ((gray[:, 1:], gray[:, :-1]), (gray[1:], gray[:-1])):
        if first.size < 2:
            continue
        a, b = first - first.mean(), second - second.mean()
        spread = float(np.sqrt(np.vdot(a, a) * np.vdot(b, b)))
        found.append(float(np.vdot(a, b)) / spread if spread > 0 else 1.0)
    return float(np.mean(found)) if found else 1.0


def decode_all(source: Source, *, working_size_px: int | None, progress: bool) -> Iterator[Decoded]:
    """Decode the samples in order, a few ahead in threads, so memory stays small whatever the size of the source."""
    work = partial(decode, source, working_size_px=working_size_px)
    return in_order(work, source.samples, text="packing images", progress=progress, bytes_of=source.decoding_bytes)


def write_pack(source: Source, folder: Path, *, working_size_px: int | None, fingerprint: str, progress: bool) -> None:
    """Pack a source into an existing empty folder.

    Raises:
        DataError: an image or a mask cannot be used, or the images cannot be brought to one number of channels.
    """
    parts: list[Decoded] = []
    with (folder / "images.bin").open("wb") as images, (folder / "masks.bin").open("wb") as masks:
        for part in decode_all(source, working_size_px=working_size_px, progress=progress):
            images.write(part.image.data)
            if part.mask is not None:
                masks.write(part.mask.data)
            parts.append(_without_pixels(part))
        for stream in (images, masks):
            stream.flush()
            os.fsync(stream.fileno())
    ids = [sample.id for sample in source.samples]
    channels, dtype, notes = common_form([(part.image.shape[2], part.image.dtype) for part in parts], ids)
    if any((part.image.shape[2], part.image.dtype) != (channels, dtype) for part in parts):
        _rewrite(folder / "images.bin", parts, channels=channels, dtype=dtype)
    _write_index(
        source, folder, parts, {"channels": channels, "dtype": dtype.name, "notes": notes, "fingerprint": fingerprint}
    )


def _without_pixels(part: Decoded) -> Decoded:
    """Keep shapes and types but let go of the pixels, so a source larger than memory can be packed."""
    hollow = np.broadcast_to(np.zeros((), dtype=part.image.dtype), part.image.shape)
    mask = None if part.mask is None else np.broadcast_to(np.uint8(0), part.mask.shape)
    return Decoded(hollow, mask, part.image_digest, part.mask_digest, part.class_pixels, part.neighbour_correlation)


def common_form(forms: Sequence[tuple[int, np.dtype[Any]]], ids: Sequence[str]) -> tuple[int, np.dtype[Any], list[str]]:
    """The channels and type that all images get, and notes on what that changes.

    Gray becomes RGB by repeating; RGBA among others loses its alpha; 8 bit becomes 16 bit or float by its share of full
    scale.

    Raises:
        DataError: the numbers of channels cannot be brought together.
    """
    counts = sorted({channels for channels, _ in forms})
    types = sorted({dtype for _, dtype in forms}, key=lambda dtype: (dtype.kind == "f", dtype.itemsize))
    notes = []
    channels = counts[0]
    if len(counts) > 1:
        if not set(counts) <= {1, 3, 4}:
            pair = [
                next(name for name, form in zip(ids, forms, strict=True) if form[0] == count)
                for count in (counts[0], counts[-1])
            ]
            raise DataError(
                f"'{pair[0]}' has {counts[0]} channel(s) and '{pair[1]}' has {counts[-1]}",
                mend="keep images of one kind in a source",
            )
        channels = 3
        tally = ", ".join(f"{sum(form[0] == count for form in forms)} with {count}" for count in counts)
        notes.append(f"images differ in channels ({tally}); all became RGB: gray repeated, alpha left out")
    if len(types) > 1:
        notes.append(f"images differ in type ({', '.join(dtype.name for dtype in types)}); all became {types[-1].name}")
    return channels, types[-1], notes


def in_form(image: np.ndarray, *, channels: int, dtype: np.dtype[Any]) -> np.ndarray:
    """One image (H, W, C) in the common channels and type."""
    if image.shape[2] != channels:
        image = np.repeat(image, channels, axis=2) if image.shape[2] == 1 else image[:, :, :channels]
    if image.dtype == dtype:
        return np.ascontiguousarray(image)
    if dtype.kind == "f":
        return np.ascontiguousarray(image / np.float32(np.iinfo(image.dtype).max), dtype=dtype)
    return np.ascontiguousarray(image.astype(dtype) * dtype.type(np.iinfo(dtype).max // np.iinfo(image.dtype).max))


def _rewrite(path: Path, parts: Sequence[Decoded], *, channels: int, dtype: np.dtype[Any]) -> None:
    mixed = path.rename(path.with_suffix(".mixed"))
    with mixed.open("rb") as old, path.open("wb") as new:
        for part in parts:
            image = np.frombuffer(old.read(part.image.nbytes), dtype=part.image.dtype).reshape(part.image.shape)
            new.write(in_form(image, channels=channels, dtype=dtype).data)
        new.flush()
        os.fsync(new.fileno())
    mixed.unlink()


def _write_index(source: Source, folder: Path, parts: Sequence[Decoded], facts: dict[str, Any]) -> None:
    pixels = np.array([part.class_pixels for part in parts], dtype=np.int64).reshape(len(parts), LABEL_VALUES)
    labels = np.flatnonzero(pixels.any(axis=0))
    arrays = {
        "sizes_px": np.array([part.image.shape[:2] for part in parts], dtype=np.int64).reshape(len(parts), 2),
        "has_mask": np.array([part.mask is not None for part in parts], dtype=bool),
        "labels": labels,
        "label_pixels": pixels[:, labels],
        "neighbour_correlation": np.array([part.neighbour_correlation for part in parts], dtype=np.float64),
    }
    write_arrays(folder / "index.npz", arrays)
    tree = {
        "version": FORMAT_VERSION,
        "root": str(source.root),
        "format": source.format,
        "samples": [[sample.id, sample.split, sample.group] for sample in source.samples],
        "image_digest": [part.image_digest for part in parts],
        "mask_digest": [part.mask_digest for part in parts],
        **facts,
    }
    write_json(folder / "index.json", tree)
