"""Every image once, for validation and scoring; large images in tiles."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from typing import final

import numpy as np
import torch
from jaxtyping import Int

from segwright.data.loader import delivered, mask_of
from segwright.data.pack import Pack
from segwright.data.tiles import TILE_PX, Tile, is_large, tile_batches, tiles_of
from segwright.tensors import Batch
from segwright.types import IGNORE_INDEX

MAX_BATCH_PIXELS = 4_000_000
"""An evaluation batch of large images is cut to this many pixels, or to one image."""


@final
class EvalLoader:
    """Every image once, at its own size, unchanged; images of one size share batches. `count` is their number.

    Large images come in overlapping tiles (`data.tiles`), the tiles of one image in batches of their own. The masks of
    tiles are void outside of their cores, so that each pixel counts once: counts of tiles add up to those of the image,
    and `Batch.weight`s to one. A mean over pixels, weighted so, is that of the image; Dice of tiles only nearly is.

    Args:
        pack: the images.
        indices: positions in the pack.
        batch_size: largest number of images or tiles a batch; larger ones come in smaller batches.
        device: where batches are delivered.
        tile_px: longest side of a tile; None never cuts an image.
    """

    def __init__(
        self,
        pack: Pack,
        indices: Sequence[int] | Int[np.ndarray, " M"],
        *,
        batch_size: int,
        device: str | torch.device = "cpu",
        tile_px: int | None = TILE_PX,
    ) -> None:
        self._pack, self._device = pack, torch.device(device)
        rows = np.asarray(indices, dtype=np.int64)
        large = np.array([is_large(*size, tile_px=tile_px) for size in pack.sizes[rows].tolist()], dtype=bool)
        self._batches: list[tuple[list[int], tuple[Tile, ...]]] = [
            (batch, ()) for batch in _equal_batches(pack, rows[~large], batch_size=batch_size)
        ]
        for i in rows[large].tolist():
            tiles = tiles_of(*pack.sizes[i].tolist(), tile_px=tile_px or TILE_PX)
            groups = tile_batches(tiles, most=batch_size)
            self._batches += [([i] * len(group), group) for group in groups]
        self.count = len(indices)

    def share(self, rank: int, *, of: int) -> EvalLoader:
        """This loader for one of several processes: every `of`-th batch; together they have each image once.

        Batches go whole to one process, so that every image is scored in the company it has with one process: the
        counts are equal to the last pixel. `count` stays the number of all images.
        """
        shared = copy.copy(self)
        shared._batches = self._batches[rank::of]
        return shared

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[Batch]:
        for rows, tiles in self._batches:
            yield self._tiled(rows, tiles) if tiles else self._whole(rows)

    def _whole(self, rows: list[int]) -> Batch:
        pictures = np.stack([self._pack.image(i).transpose(1, 2, 0) for i in rows])
        labels = np.stack([mask_of(self._pack, i) for i in rows]) if self._pack.has_mask[rows[0]] else None
        return self._batch(rows, pictures, labels)

    def _tiled(self, rows: list[int], tiles: tuple[Tile, ...]) -> Batch:
        image, mask = self._pack.image(rows[0]).transpose(1, 2, 0), self._pack.mask(rows[0])
        pictures = np.stack([image[tile.window] for tile in tiles])
        if mask is None:
            cores = sum(image[tile.core].size for tile in tiles)
            return self._batch(rows, pictures, None, share=cores / image.size)
        labels = np.full(pictures.shape[:3], IGNORE_INDEX, dtype=np.uint8)
        for label, tile in zip(labels, tiles, strict=True):
            label[tile.inner] = mask[tile.core]
        valid = int(self._pack.class_pixels[rows[0], :IGNORE_INDEX].sum())
        return self._batch(rows, pictures, labels, share=np.count_nonzero(labels != IGNORE_INDEX) / max(1, valid))

    def _batch(
        self, rows: list[int], pictures: np.ndarray, labels: np.ndarray | None, *, share: float | None = None
    ) -> Batch:
        images = torch.from_numpy(pictures).permute(0, 3, 1, 2)
        masks = None if labels is None else delivered(torch.from_numpy(labels.astype(np.int64)), self._device)
        return Batch(delivered(images, self._device), masks, torch.tensor(rows, dtype=torch.int64), share)


def _equal_batches(pack: Pack, indices: Int[np.ndarray, " M"], *, batch_size: int) -> list[list[int]]:
    alike: dict[tuple[int, int, bool], list[int]] = {}
    for i in indices.tolist():
        alike.setdefault((int(pack.sizes[i, 0]), int(pack.sizes[i, 1]), bool(pack.has_mask[i])), []).append(i)
    batches = []
    for (height, width, _), rows in alike.items():
        size = max(1, min(batch_size, MAX_BATCH_PIXELS // (height * width)))
        even = math.ceil(len(rows) / math.ceil(len(rows) / size))
        batches += [rows[start : start + even] for start in range(0, len(rows), even)]
    return batches
