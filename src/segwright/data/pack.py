"""A pack: all images of a source decoded once, kept as they were stored (uint8 as a rule), and read without copying.

The pixels lie in one file in the cache. It is mapped into memory, so the operating system keeps it resident while there
is room and reads it piecewise where there is not; of a large pack only a part counts as memory of the process (see
`residency`). `resident="memory"` holds a copy of its own where that fits.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, final

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped, UInt8

from segwright.data.pack_cache import Slot, find_slot
from segwright.data.packing import FORMAT_VERSION, LABEL_VALUES, common_form, decode_all, in_form, measure, write_pack
from segwright.data.residency import LARGEST_SHARE, Residency, map_file, read_ahead, read_file
from segwright.data.sources import Source
from segwright.errors import DataError, SegwrightError
from segwright.files import read_arrays, read_json
from segwright.hardware import available_memory_bytes
from segwright.types import ImageArray, MaskArray, SplitName

Resident = Literal["auto", "memory", "device", "map"]

NOISE_CORRELATION = 0.2
"""Images whose neighbouring pixels correlate less than this are noise; photos stay above 0.5."""


@final
@dataclass(frozen=True, eq=False, repr=False)
class Pack:
    """N decoded images with what is known of each.

    Attributes:
        ids: as in the source.
        groups: group of each image, or None.
        given_split: side on which the source puts each image, or None.
        sizes: (N, 2) rows and columns.
        has_mask: (N,) whether there is a mask.
        channels: of every image.
        dtype: of every image: uint8, uint16 or float32.
        class_pixels: (N, 256) pixels of each label; column 255 counts the pixels that count nowhere.
        image_digest: digest of each decoded image at its full size; equal digests are equal pictures.
        mask_digest: the same of the masks; empty where there is none.
        noise: (N,) correlation of neighbouring pixels, near 0 for noise (see `packing.neighbour_correlation`).
        notes: what packing changed, in sentences.
        resident: where the pixels are to be kept while training.
        folder: the packed folder; None for a pack that exists in memory only.
        residency: keeps the memory of large packs small; None for a pack that is held in memory.
    """

    ids: tuple[str, ...]
    groups: tuple[str | None, ...]
    given_split: tuple[SplitName | None, ...]
    sizes: Int[np.ndarray, "N 2"]
    has_mask: Bool[np.ndarray, " N"]
    channels: int
    dtype: np.dtype[Any]
    class_pixels: Int[np.ndarray, "N 256"]
    image_digest: tuple[str, ...]
    mask_digest: tuple[str, ...]
    noise: Float[np.ndarray, " N"]
    notes: tuple[str, ...]
    resident: Resident
    folder: Path | None
    image_values: np.ndarray
    mask_values: np.ndarray
    image_start: Int[np.ndarray, " N"]
    mask_start: Int[np.ndarray, " N"]
    residency: Residency | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        return f"Pack({len(self)} images, {self.channels} channels, {self.dtype.name}, {self.folder or 'in memory'})"

    def image(self, i: int) -> ImageArray:
        """Image (C, H, W), a read-only view of (H, W, C) memory."""
        height, width = self.sizes[i].tolist()
        start = int(self.image_start[i])
        flat = self.image_values[start : start + height * width * self.channels]
        if self.residency is not None:
            self.residency.hand_out(flat.nbytes)
        return flat.reshape(height, width, self.channels).transpose(2, 0, 1)

    def mask(self, i: int) -> MaskArray | None:
        """Mask (H, W) uint8, a read-only view; None where the image is unlabelled."""
        if not self.has_mask[i]:
            return None
        height, width = self.sizes[i].tolist()
        start = int(self.mask_start[i])
        if self.residency is not None:
            self.residency.hand_out(height * width)
        return self.mask_values[start : start + height * width].reshape(height, width)

    def subset(self, indices: Sequence[int] | Int[np.ndarray, " M"]) -> Pack:
        """A pack of some images, in the given order, on the same memory."""
        rows = np.asarray(indices, dtype=np.int64)
        named: dict[str, Any] = {
            name: tuple(getattr(self, name)[i] for i in rows)
            for name in ("ids", "groups", "given_split", "image_digest", "mask_digest")
        }
        counted: dict[str, Any] = {
            name: getattr(self, name)[rows]
            for name in ("sizes", "has_mask", "class_pixels", "noise", "image_start", "mask_start")
        }
        return replace(self, **named, **counted)

    def noise_like(self) -> Int[np.ndarray, " M"]:
        """Positions of the images that have no spatial structure."""
        return np.flatnonzero(self.noise < NOISE_CORRELATION)

    @property
    def one_size(self) -> bool:
        return len(self) > 0 and bool((self.sizes == self.sizes[0]).all())

    @property
    def pixel_bytes(self) -> int:
        """Bytes of the images and masks."""
        areas = self.sizes.prod(axis=1)
        return int(areas.sum()) * self.channels * self.dtype.itemsize + int(areas[self.has_mask].sum())

    @property
    def digest(self) -> str:
        """One digest of all ids, images and masks."""
        total = hashlib.blake2b(digest_size=16)
        for row in zip(self.ids, self.image_digest, self.mask_digest, strict=True):
            total.update("\0".join(row).encode() + b"\n")
        return total.hexdigest()


def open_pack(
    source: Source, *, working_size_px: int | None = None, resident: Resident = "auto", cache: Path | None = None,
    progress: bool = True, verify: bool = False,
) -> Pack:  # fmt: skip
    """Open the pack of a source, packing it first where the cache has none or its files have changed since.

    Args:
        source: the images.
        working_size_px: longer sides are scaled down to this; None keeps the full size.
        resident: `map` reads through the map; `auto` also asks for it to be read ahead where it fits; `memory` makes a
            copy where it fits, else it is `map`, and a note says so; `device` is `auto` and a wish that the loader
            heeds.
        cache: folder of packs; None for `$SEGWRIGHT_CACHE/packs` or `~/.cache/segwright/packs`.
        progress: show a progress bar while packing, on a terminal.
        verify: read and compare all pixels instead of trusting sizes and times of files.

    Raises:
        DataError: the source is empty, or one of its images or masks cannot be used.
        OutputError: the cache cannot be written.
    """
    if not source.samples:
        raise DataError("there is no image", mend="check that the path is the right one", file=source.root)
    slot = find_slot(source, working_size_px=working_size_px, cache=cache)
    if not verify:
        with slot.locked(shared=True):
            pack = _read(slot, resident=resident)
            if pack is not None:
                return pack
    with slot.locked(shared=False):
        pack = _read(slot, resident=resident)
        if pack is not None and not (
            verify and _differs(pack, source, working_size_px=working_size_px, progress=progress)
        ):
            return pack
        with slot.replaced() as folder:
            write_pack(source, folder, working_size_px=working_size_px, fingerprint=slot.fingerprint, progress=progress)
        pack = _read(slot, resident=resident)
        assert pack is not None, "a pack just written must be readable"
        return pack


def _differs(pack: Pack, source: Source, *, working_size_px: int | None, progress: bool) -> bool:
    parts = decode_all(source, working_size_px=working_size_px, progress=progress)
    pairs = zip(parts, pack.image_digest, pack.mask_digest, strict=True)
    return any((part.image_digest, part.mask_digest) != (image, mask) for part, image, mask in pairs)


def _read(slot: Slot, *, resident: Resident) -> Pack | None:
    """The pack in a slot; None where there is none, or it is damaged, of another version or of older files."""
    try:
        tree, arrays = read_json(slot.folder / "index.json"), read_arrays(slot.folder / "index.npz")
        if tree["version"] != FORMAT_VERSION or tree["fingerprint"] != slot.fingerprint:
            return None
        dtype = np.dtype(tree["dtype"])
        areas = arrays["sizes_px"].prod(axis=1)
        image_start, mask_start = _starts(areas * tree["channels"]), _starts(areas * arrays["has_mask"])
        files = [
            (slot.folder / "images.bin", dtype, int(image_start[-1])),
            (slot.folder / "masks.bin", np.dtype(np.uint8), int(mask_start[-1])),
        ]
        (images, masks), residency, note = _values(files, resident=resident)
        pixels = np.zeros((len(areas), LABEL_VALUES), dtype=np.int64)
        pixels[:, arrays["labels"]] = arrays["label_pixels"]
        ids, sides, groups = zip(*tree["samples"], strict=True)
    except (SegwrightError, OSError, KeyError, TypeError, ValueError, IndexError):
        return None
    return Pack(
        ids=ids,
        groups=groups,
        given_split=sides,
        sizes=arrays["sizes_px"],
        has_mask=arrays["has_mask"],
        channels=tree["channels"],
        dtype=dtype,
        class_pixels=pixels,
        image_digest=tuple(tree["image_digest"]),
        mask_digest=tuple(tree["mask_digest"]),
        noise=arrays["neighbour_correlation"],
        notes=(*tree["notes"], *note),
        resident=resident,
        folder=slot.folder,
        image_values=images,
        mask_values=masks,
        image_start=image_start[:-1],
        mask_start=mask_start[:-1],
        residency=residency,
    )


def _starts(lengths: np.ndarray) -> np.ndarray:
    return np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(lengths, dtype=np.int64)])


def _values(
    files: Sequence[tuple[Path, np.dtype[Any], int]], *, resident: Resident
) -> tuple[list[np.ndarray], Residency | None, tuple[str, ...]]:
    """The values of files, in memory or mapped, what looks after the maps, and what the user should know."""
    for path, dtype, count in files:
        if path.stat().st_size != count * dtype.itemsize:
            raise DataError("is cut short", file=path)
    total = sum(count * dtype.itemsize for _, dtype, count in files)
    share = total / max(1, available_memory_bytes())
    notes: tuple[str, ...] = ()
    if resident == "memory" and share <= LARGEST_SHARE:
        return [read_file(path, dtype=dtype) for path, dtype, _ in files], None, ()
    if resident == "memory":
        notes = (f"the pixels take {total / 2**30:.1f} GiB, too much for the memory that is left: read from disk",)
    pairs = [map_file(path, dtype=dtype) for path, dtype, count in files if count]
    maps = [mapped for _, mapped in pairs]
    if resident != "map" and share <= LARGEST_SHARE:
        read_ahead(maps)
    values = iter(values for values, _ in pairs)
    return [next(values) if count else np.zeros(0, dtype) for _, dtype, count in files], Residency(maps), notes


def pack_arrays(
    images: Sequence[Shaped[np.ndarray, "_ _ _"]],
    masks: Sequence[UInt8[np.ndarray, "_ _"] | None] | None = None,
    *,
    ids: Sequence[str] | None = None,
    groups: Sequence[str | None] | None = None,
) -> Pack:
    """A pack of arrays that are in memory already; nothing is written.

    Raises:
        DataError: there is no image, or the images cannot be brought to one number of channels.
    """
    if not images:
        raise DataError("there is no image", mend="give at least one")
    count = len(images)
    names = tuple(ids) if ids is not None else tuple(f"{i:05d}" for i in range(count))
    parts = [measure(image, mask) for image, mask in zip(images, masks or [None] * count, strict=True)]
    channels, dtype, notes = common_form([(part.image.shape[2], part.image.dtype) for part in parts], names)
    pictures = [in_form(part.image, channels=channels, dtype=dtype).reshape(-1) for part in parts]
    labels = [np.zeros(0, np.uint8) if part.mask is None else part.mask.reshape(-1) for part in parts]
    return Pack(
        ids=names,
        groups=tuple(groups or [None] * count),
        given_split=(None,) * count,
        sizes=np.array([part.image.shape[:2] for part in parts], dtype=np.int64),
        has_mask=np.array([part.mask is not None for part in parts], dtype=bool),
        channels=channels,
        dtype=dtype,
        class_pixels=np.array([part.class_pixels for part in parts]),
        image_digest=tuple(part.image_digest for part in parts),
        mask_digest=tuple(part.mask_digest for part in parts),
        noise=np.array([part.neighbour_correlation for part in parts]),
        notes=tuple(notes),
        resident="memory",
        folder=None,
        image_values=np.concatenate(pictures),
        mask_values=np.concatenate(labels),
        image_start=_starts(np.array([len(part) for part in pictures]))[:-1],
        mask_start=_starts(np.array([len(part) for part in labels]))[:-1],
    )
