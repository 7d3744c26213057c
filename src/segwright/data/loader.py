"""Batches from a pack for training, as an endless, resumable stream; `eval_loader` shows every image once.

The training stream is a function of its seed and the number of the step alone: images are drawn by permutations that
follow one another without a gap (every batch is full), and the parameters of a step come from generators of their own.
So a run that was stopped goes on with exactly the batches it would have seen, and several processes that train one
model part these very batches among them (`share`). No worker processes: on the CPU augmentation costs a few per cent of
a step, and images of one size are kept and augmented on a GPU where they fit.

A batch is made in this order: crops are moved onto objects, objects are pasted (before the augmentation, so that they
go through it), images are augmented, then mixed with one another. An image that is mixed in is made by every process
that needs it.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import final

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from segwright.augment import Draw, Policy, augment_on_cpu, augment_on_device, draw
from segwright.augment.focus import centred_maps
from segwright.augment.mix import MixDraw, MixPolicy, draw_mix, mix
from segwright.augment.paste import Patch, lay_on_device
from segwright.data.objects import Objects
from segwright.data.order import Order
from segwright.data.pack import Pack
from segwright.data.pasting import Pasting
from segwright.errors import DataError, RecipeError, RunError
from segwright.tensors import Batch, Images, Masks
from segwright.types import MaskArray

DEVICE_SHARE = 0.4
"""A pack moves to the GPU when it takes no more than this share of its free memory."""

_CHANGE, _MIX, _FOCUS = 1, 2, 3


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
        changed: which of `indices` the policy is for; the others stay as they are. None: all.
        seed: decides order and changes.
        device: where batches are delivered.

    Raises:
        DataError: there is no training image, one has no mask, or the weights do not fit.
    """

    def __init__(
        self, pack: Pack, indices: Sequence[int] | Int[np.ndarray, " M"], *, batch_size: int, policy: Policy,
        crop_px: tuple[int, int], weights: Float[np.ndarray, " M"] | None = None,
        changed: Bool[np.ndarray, " M"] | None = None, seed: int = 0, device: str | torch.device = "cpu",
    ) -> None:  # fmt: skip
        self._pack, self._indices = pack, np.asarray(indices, dtype=np.int64)
        self._batch_size, self._policy, self._crop_px, self._seed = batch_size, policy, crop_px, seed
        self._device, self._changed = torch.device(device), changed
        _check_masks(pack, self._indices)
        self._order = Order(len(self._indices), weights=weights, seed=seed)
        self._step = 0
        self._mine = np.arange(batch_size)
        self._focus: tuple[Objects, float] | None = None
        self._mixing: tuple[MixPolicy, Pasting | None] | None = None
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
        shared._mine = np.arange(rank * self._batch_size // of, (rank + 1) * self._batch_size // of)
        return shared

    def centred_on(self, objects: Objects, *, share: float) -> TrainLoader:
        """This loader with crops that lie around objects.

        Args:
            objects: of the training images.
            share: of the draws of an image that holds an object, which go to a random one of its objects.
        """
        centred = copy.copy(self)
        centred._focus = (objects, share)
        return centred

    def mixed(self, policy: MixPolicy, *, objects: Objects | None = None) -> TrainLoader:
        """This loader with images that are mixed, and that objects are pasted into.

        Args:
            policy: how often and how.
            objects: of the training images, for copy-paste; an object that touches opposite borders is not pasted.

        Raises:
            RecipeError: images are to be mixed with one another in batches of one, or there is no object to paste.
        """
        if policy.blends_images and self._batch_size < 2:
            problem = "'mix.cutmix' and 'mix.classmix' need other images in the batch, which holds one"
            raise RecipeError(problem, mend="set training.batch_size to 2 or more, or both shares to 0")
        mixed = copy.copy(self)
        pasting = Pasting(self._pack, objects, policy=policy) if objects is not None and policy.copy_paste > 0 else None
        mixed._mixing = (policy, pasting)
        return mixed

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
        places = self._order.places(step * self._batch_size, count=self._batch_size)
        # All is drawn for the whole batch, so that an image is changed alike whichever process has it.
        parameters = self._draw(places, step=step)
        if self._mixing is None:
            images, masks = self._augmented(places[self._mine], parameters.part(self._mine))
        else:
            rng = np.random.default_rng([self._seed, _MIX, step])
            mixing = draw_mix(self._mixing[0], self._batch_size, crop_px=self._crop_px, rng=rng)
            needed = mixing.needed(self._mine)
            part = mixing.part(needed, mixed=len(self._mine))
            images, masks = self._augmented(places[needed], parameters.part(needed), part)
            mix(images, masks, part)
            images, masks = images[: len(self._mine)], masks[: len(self._mine)]
        return Batch(images, masks, torch.from_numpy(self._indices[places[self._mine]]))

    def _draw(self, places: Int[np.ndarray, " N"], *, step: int) -> Draw:
        rows = self._indices[places]
        sizes = self._pack.sizes[rows]
        rng = np.random.default_rng([self._seed, _CHANGE, step])
        changed = None if self._changed is None else self._changed[places]
        channels = self._pack.channels
        parameters = draw(self._policy, sizes, crop_px=self._crop_px, channels=channels, rng=rng, changed=changed)
        if self._focus is None:
            return parameters
        rng = np.random.default_rng([self._seed, _FOCUS, step])
        anchors = self._focus[0].anchors(rows, share=self._focus[1], rng=rng)
        maps = centred_maps(
            parameters.matrices, sizes, crop_px=self._crop_px, anchors=anchors, rng=rng,
            fill=self._policy.rotate_fill,
            reach_px=None if parameters.distortion is None else parameters.distortion.reach_px(),
        )  # fmt: skip
        return replace(parameters, matrices=maps)

    def _augmented(
        self, places: Int[np.ndarray, " N"], parameters: Draw, mixing: MixDraw | None = None
    ) -> tuple[Images, Masks]:
        """The images at some places, with what is pasted into them, on the device."""
        rows = self._indices[places].tolist()
        pasting = None if self._mixing is None else self._mixing[1]
        labels = [mask_of(self._pack, i) for i in rows]
        patches: list[tuple[Patch, ...]] = [()] * len(rows)
        if pasting is not None and mixing is not None:
            maps = zip(labels, parameters.matrices, strict=True)
            pairs = [
                pasting.patches(mixing, n, mask, matrix=matrix, crop_px=self._crop_px)
                for n, (mask, matrix) in enumerate(maps)
            ]
            patches, labels = [patch for patch, _ in pairs], [mask for _, mask in pairs]
        if self._stack is not None:
            chosen = torch.from_numpy(places).to(self._device, non_blocking=True)
            images, masks = self._stack[0][chosen], self._stack[1][chosen]
            for n, pasted in enumerate(patches):
                lay_on_device(images[n], masks[n], pasted)
            changed = augment_on_device(images, masks, parameters, crop_px=self._crop_px)
        else:
            pictures = [self._pack.image(i) for i in rows]
            if pasting is not None:
                pictures = [pasting.pasted(image, patches[n], n=n) for n, image in enumerate(pictures)]
            changed = augment_on_cpu(pictures, labels, parameters, crop_px=self._crop_px)
        assert changed[1] is not None, "masks in, masks out"
        return delivered(changed[0], self._device), delivered(changed[1], self._device)


def _check_masks(pack: Pack, indices: Int[np.ndarray, " M"]) -> None:
    if len(indices) == 0:
        raise DataError("there is no image to train on", mend="choose another split")
    unlabelled = indices[~pack.has_mask[indices]]
    if len(unlabelled):
        raise DataError(
            f"training image '{pack.ids[unlabelled[0]]}' has no mask", mend="draw one, or leave the image out of train"
        )


def mask_of(pack: Pack, i: int) -> MaskArray:
    """The mask of an image that is known to have one."""
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
        masks[i] = torch.from_numpy(mask_of(chosen, i).copy())
    return images, masks


_TORCH_TYPES = {"uint8": torch.uint8, "float32": torch.float32}


def delivered(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A tensor of the CPU on the device; a GPU does not make the host wait."""
    if device.type == "cpu":
        return tensor
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)
