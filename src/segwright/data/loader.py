"""Batches from a pack: an endless, resumable stream for training, and every image once for evaluation.

The training stream is a function of its seed and the number of the step alone: images are drawn by permutations that
follow one another without a gap (every batch is full), and the parameters of a step come from a generator of their own.
So a run that was stopped goes on with exactly the batches it would have seen, and several processes that train one
model part these very batches among them (`share`). No worker processes: on the CPU augmentation costs a few per cent of
a step, and images of one size are kept and augmented on a GPU where they fit.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import final

import cv2
import numpy as np
import torch
from jaxtyping import Float, Int

from segwright.augment import Draw, Policy, augment_on_cpu, augment_on_device, draw
from segwright.data.pack import Pack
from segwright.data.tiles import TILE_PX, Tile, is_large, tile_batches, tiles_of
from segwright.errors import DataError, RecipeError, RunError
from segwright.types import IGNORE_INDEX, Batch, Images, MaskArray, Masks

MAX_BATCH_PIXELS = 4_000_000
"""An evaluation batch of large images is cut to this many pixels, or to one image."""

DEVICE_SHARE = 0.4
"""A pack moves to the GPU when it takes no more than this share of its free memory."""

_ORDER, _CHANGE = 0, 1


@final
class TrainLoader:
    """Augmented batches of one size, forever; iterating gives one epoch.

    Args:
        pack: the images.
        indices: positions in the pack of the training images, which all have masks.
        batch_size: images a batch; every batch is full.
        policy: ranges of the random changes.
        crop_px: rows and columns of a batch.
        weights: relative chance of each of `indices` to be drawn; None draws each once a pass.
        seed: decides order and changes.
        device: where batches are delivered.

    Raises:
        DataError: there is no training image, one has no mask, or the weights do not fit.
    """

    def __init__(
        self, pack: Pack, indices: Sequence[int] | Int[np.ndarray, " M"], *, batch_size: int, policy: Policy,
        crop_px: tuple[int, int], weights: Float[np.ndarray, " M"] | None = None, seed: int = 0,
        device: str | torch.device = "cpu",
    ) -> None:  # fmt: skip
        self._pack, self._indices = pack, np.asarray(indices, dtype=np.int64)
        self._batch_size, self._policy, self._crop_px, self._seed = batch_size, policy, crop_px, seed
        self._device = torch.device(device)
        self._shares = _shares(pack, self._indices, weights)
        self._step = 0
        self._mine = slice(None)
        self._drawn: tuple[int, np.ndarray] | None = None
        self._stack = _stack_on_device(pack, self._indices, self._device)
        # Threads of OpenCV would fight with those of torch for the cores; one call is too short to share.
        cv2.setNumThreads(0)

    def share(self, rank: int, *, of: int) -> TrainLoader:
        """This loader for one of several processes: its own part of every batch, the same images as one process has.

        Args:
            rank: which process, from 0.
            of: how many there are; their parts are of equal size, or differ by one image.

        Raises:
            RecipeError: there are more processes than images in a batch.
        """
        if of > self._batch_size:
            problem = f"batches of {self._batch_size} images are too few for {of} processes"
            raise RecipeError(problem, mend=f"set training.batch_size to {of} or more, or training.devices to fewer")
        shared = copy.copy(self)
        shared._mine = slice(rank * self._batch_size // of, (rank + 1) * self._batch_size // of)
        return shared

    @property
    def keeps_images_on_device(self) -> bool:
        """Whether the images lie on the GPU and are augmented there."""
        return self._stack is not None

    def __len__(self) -> int:
        """Steps an epoch: about one draw an image."""
        return max(1, round(len(self._indices) / self._batch_size))

    def __iter__(self) -> Iterator[Batch]:
        """The rest of the current epoch: a whole one, except after `load_state_dict` in the middle of one."""
        for _ in range(len(self) - self._step % len(self)):
            batch = self.batch(self._step)
            self._step += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """The number of batches that were delivered; all that resuming needs."""
        return {"step": self._step, "seed": self._seed, "images": len(self._indices), "batch_size": self._batch_size}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Go on where another loader of the same arguments stood.

        Raises:
            RunError: the state belongs to other images, another batch size or another seed.
        """
        mine = self.state_dict()
        for name in ("seed", "images", "batch_size"):
            if state[name] != mine[name]:
                raise RunError(
                    f"the saved position has {name} = {state[name]}, now it is {mine[name]}",
                    mend="resume with the recipe of the run",
                )
        self._step = int(state["step"])

    def batch(self, step: int) -> Batch:
        """The batch of a step (this process's share of it), the same whenever it is asked for."""
        places = self._places(step)
        sizes = self._pack.sizes[self._indices[places]]
        rng = np.random.default_rng([self._seed, _CHANGE, step])
        # Drawn for the whole batch, so that an image is changed alike whichever process has it.
        parameters = draw(self._policy, sizes, crop_px=self._crop_px, channels=self._pack.channels, rng=rng)
        mine = places[self._mine]
        images, masks = self._augmented(mine, parameters.part(self._mine))
        return Batch(images, masks, torch.from_numpy(self._indices[mine]))

    def _augmented(self, places: np.ndarray, parameters: Draw) -> tuple[Images, Masks | None]:
        if self._stack is not None:
            chosen = torch.from_numpy(places).to(self._device, non_blocking=True)
            return augment_on_device(self._stack[0][chosen], self._stack[1][chosen], parameters, crop_px=self._crop_px)
        rows = self._indices[places].tolist()
        images = [self._pack.image(i) for i in rows]
        arrays = augment_on_cpu(images, [_mask(self._pack, i) for i in rows], parameters, crop_px=self._crop_px)
        assert arrays[1] is not None
        return _delivered(arrays[0], self._device), _delivered(arrays[1], self._device)

    def _places(self, step: int) -> Int[np.ndarray, " N"]:
        """Positions within `indices` of one batch; pass after pass without a gap."""
        count = len(self._indices)
        stream = np.arange(step * self._batch_size, (step + 1) * self._batch_size)
        return np.array([self._pass(int(place) // count)[int(place) % count] for place in stream], dtype=np.int64)

    def _pass(self, number: int) -> Int[np.ndarray, " M"]:
        """The order of one pass over the images."""
        if self._drawn is None or self._drawn[0] != number:
            rng = np.random.default_rng([self._seed, _ORDER, number])
            order = rng.permutation(len(self._indices))
            self._drawn = (number, order if self._shares is None else _systematic(self._shares, order, rng))
        return self._drawn[1]


def _systematic(
    shares: Float[np.ndarray, " M"], order: Int[np.ndarray, " M"], rng: np.random.Generator
) -> Int[np.ndarray, " M"]:
    """Systematic resampling: each image is drawn its expected number of times, rounded up or down, in random order."""
    count = len(shares)
    edges = np.cumsum(shares[order])
    ticks = (np.arange(count) + rng.random()) / count * edges[-1]
    drawn = order[np.minimum(np.searchsorted(edges, ticks, side="right"), count - 1)]
    return np.asarray(rng.permutation(drawn))


def _shares(pack: Pack, indices: Int[np.ndarray, " M"], weights: np.ndarray | None) -> Float[np.ndarray, " M"] | None:
    if len(indices) == 0:
        raise DataError("there is no image to train on", mend="choose another split")
    unlabelled = indices[~pack.has_mask[indices]]
    if len(unlabelled):
        raise DataError(
            f"training image '{pack.ids[unlabelled[0]]}' has no mask", mend="draw one, or leave the image out of train"
        )
    if weights is None:
        return None
    shares = np.asarray(weights, dtype=np.float64)
    if shares.shape != indices.shape or not np.isfinite(shares).all() or shares.min() < 0 or shares.sum() <= 0:
        raise DataError(
            "the weights of the images do not fit them", mend="give one number >= 0 for each image, not all 0"
        )
    return shares


def _mask(pack: Pack, i: int) -> MaskArray:
    mask = pack.mask(i)
    assert mask is not None, "indices without a mask are refused at the start"
    return mask


def _stack_on_device(pack: Pack, indices: Int[np.ndarray, " M"], device: torch.device) -> tuple[Images, Masks] | None:
    """All images and masks on the GPU, where they are of one size and fit; None otherwise."""
    chosen = pack.subset(indices)
    if (
        device.type != "cuda"
        or pack.resident not in ("auto", "device")
        or not chosen.one_size
        or pack.dtype == np.uint16
    ):
        return None
    free, _ = torch.cuda.mem_get_info(device)
    if chosen.pixel_bytes > DEVICE_SHARE * free:
        return None
    size = tuple(chosen.sizes[0].tolist())
    images = torch.empty((len(chosen), chosen.channels, *size), dtype=_TORCH_TYPES[chosen.dtype.name], device=device)
    masks = torch.empty((len(chosen), *size), dtype=torch.uint8, device=device)
    # One by one: a second copy of all images in main memory may be more than there is.
    for i in range(len(chosen)):
        images[i] = torch.from_numpy(chosen.image(i).copy())
        masks[i] = torch.from_numpy(_mask(chosen, i).copy())
    return images, masks


_TORCH_TYPES = {"uint8": torch.uint8, "float32": torch.float32}


def _delivered(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    if device.type == "cpu":
        return tensor
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


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
        labels = np.stack([_mask(self._pack, i) for i in rows]) if self._pack.has_mask[rows[0]] else None
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
        masks = None if labels is None else _delivered(torch.from_numpy(labels.astype(np.int64)), self._device)
        return Batch(_delivered(images, self._device), masks, torch.tensor(rows, dtype=torch.int64), share)


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
