"""Mix the images of a batch: CutMix, ClassMix, and the chance of copy-paste.

    CutMix    a rectangle of another image of the batch, its mask with it; the share that stays is drawn from
              Beta(1, 1), the uniform law (Yun et al. 2019, https://arxiv.org/abs/1905.04899)
    ClassMix  half of the classes that another image shows, rounded down, with their pixels and labels
              (Olsson et al. 2021, https://arxiv.org/abs/2007.07936)
    copy-paste   objects of rare classes, cut out of training images along their outline (see `paste`)

An image is mixed with another in one of the first two ways at most. Others give what they showed before they were mixed
themselves, so the order of a batch does not matter. Void travels with a rectangle, whose mask is the mask of its image;
ClassMix never takes it. All chance of a batch is in its `MixDraw`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Int64, Shaped
from torch import Tensor

from segwright.errors import RecipeError
from segwright.types import IGNORE_INDEX

TRIES = 20
"""So many places are tried for an object before it is given up."""

CHANCES_A_TRY = 6
"""Numbers that decide one try: class, object, scale, mirror, column and row."""

LABELS = 256

MOST_CHANNELS = 4
"""OpenCV is asked to copy no more channels at once."""

MIXINGS: dict[str, tuple[str, str]] = {
    "cutmix": (
        "a rectangle of another image of the batch, with its mask",
        "Yun et al. 2019, https://arxiv.org/abs/1905.04899",
    ),
    "classmix": (
        "half of the classes that another image of the batch shows, with their pixels",
        "Olsson et al. 2021, https://arxiv.org/abs/2007.07936",
    ),
    "copy_paste": (
        "objects of rare classes, cut along their outline and pasted where they may stand",
        "Ghiasi et al. 2021, https://arxiv.org/abs/2012.07177",
    ),
}
"""Key in `mix:` of a recipe -> (one line, paper)."""


@dataclass(frozen=True)
class MixPolicy:
    """How often and how images are mixed; the defaults change nothing.

    Attributes:
        cutmix: share of the images that get a rectangle of another.
        classmix: share of the images that get half of another's classes.
        copy_paste: share of the images that get objects.
        paste_labels: labels of the objects.
        paste_objects: most objects an image; from 1 on, all numbers are equally likely.
        paste_scale: smallest and largest zoom of an object, drawn log-uniformly.
        paste_flip: mirror every other object, left to right.
        paste_feather_px: width of the blend of an object's border into the image; its mask stays hard.
        paste_onto: labels on which an object may be laid; empty: all but `paste_labels`.

    Raises:
        RecipeError: the shares of CutMix and ClassMix come to more than 1, or the zoom factors are in the wrong order.
    """

    cutmix: float = 0.0
    classmix: float = 0.0
    copy_paste: float = 0.0
    paste_labels: tuple[int, ...] = ()
    paste_objects: int = 3
    paste_scale: tuple[float, float] = (0.5, 1.5)
    paste_flip: bool = True
    paste_feather_px: float = 1.0
    paste_onto: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.cutmix + self.classmix > 1:
            problem = f"'mix.cutmix' = {self.cutmix:g} and 'mix.classmix' = {self.classmix:g} come to more than 1"
            raise RecipeError(problem, mend="an image is mixed in one of the two ways: lower one of the shares")
        if not 0 < self.paste_scale[0] <= self.paste_scale[1]:
            mend = "give the smaller factor first, both above 0, such as [0.5, 1.5]"
            raise RecipeError(f"'mix.paste_scale' = {self.paste_scale}", mend=mend)

    @property
    def blends_images(self) -> bool:
        """Whether images of a batch are mixed with one another."""
        return self.cutmix + self.classmix > 0

    @property
    def allowed(self) -> Bool[np.ndarray, " 256"]:
        """Labels on which an object may be laid; never void."""
        allowed = np.full(LABELS, not self.paste_onto)
        allowed[list(self.paste_onto or self.paste_labels)] = bool(self.paste_onto)
        allowed[IGNORE_INDEX] = False
        return allowed


@dataclass(frozen=True)
class MixDraw:
    """All chance of N images.

    Attributes:
        partner: (N,) the other image.
        rectangle: (N, 4) top, left, bottom and right of what CutMix takes of it, in pixels; empty where it does not.
        class_order: (N, 256) ClassMix takes the shown classes of lowest numbers; None where no image is so mixed.
        by_class: (N,) whether the image goes through ClassMix.
        objects: (N,) how many objects are to be pasted.
        paste: (N, objects, tries, 6) the numbers of each try, uniform in 0..1; None where none is pasted.
    """

    partner: Int[np.ndarray, " N"]
    rectangle: Int[np.ndarray, "N 4"]
    class_order: Float[np.ndarray, "N 256"] | None
    by_class: Bool[np.ndarray, " N"]
    objects: Int[np.ndarray, " N"]
    paste: Float[np.ndarray, "N M T 6"] | None

    @property
    def blended(self) -> Int[np.ndarray, " R"]:
        """The images that take something of their partner."""
        return np.flatnonzero(self.by_class | (self.rectangle[:, 2] > self.rectangle[:, 0]))

    def needed(self, rows: Int[np.ndarray, " M"]) -> Int[np.ndarray, " P"]:
        """Some images, followed by those others that they take something of."""
        blended = self.blended
        if len(blended) == 0 or len(rows) == len(self.partner):
            return rows
        partners = self.partner[np.intersect1d(rows, blended)]
        return np.concatenate([rows, np.setdiff1d(partners, rows)])

    def part(self, rows: Int[np.ndarray, " M"], *, mixed: int) -> MixDraw:
        """The parameters of some images, of which the first `mixed` are mixed and have their partners among all."""
        position = np.zeros(len(self.partner), dtype=np.int64)
        position[rows] = np.arange(len(rows))
        first = np.arange(len(rows)) < mixed
        return replace(
            self,
            partner=position[self.partner[rows]],
            rectangle=self.rectangle[rows] * first[:, None],
            class_order=None if self.class_order is None else self.class_order[rows],
            by_class=self.by_class[rows] & first,
            objects=self.objects[rows],
            paste=None if self.paste is None else self.paste[rows],
        )


def draw_mix(policy: MixPolicy, count: int, *, crop_px: tuple[int, int], rng: np.random.Generator) -> MixDraw:
    """Draw the mixing of one batch.

    Args:
        policy: how often and how.
        count: images in the batch; a single one has no partner and is left alone by CutMix and ClassMix.
        crop_px: rows and columns of the images.
        rng: the only source of chance.
    """
    unit = rng.random((count, 4))
    partner = (np.arange(count) + 1 + rng.integers(0, max(count - 1, 1), count)) % count
    by_rectangle = (unit[:, 0] < policy.cutmix) & (count > 1)
    by_class = (unit[:, 0] >= policy.cutmix) & (unit[:, 0] < policy.cutmix + policy.classmix) & (count > 1)
    rectangle = _rectangles(rng.random((count, 3)), crop_px=crop_px) * by_rectangle[:, None]
    order = rng.random((count, LABELS)) if by_class.any() else None
    objects = np.where(unit[:, 1] < policy.copy_paste, 1 + (unit[:, 2] * policy.paste_objects).astype(np.int64), 0)
    paste = rng.random((count, policy.paste_objects, TRIES, CHANCES_A_TRY)) if objects.any() else None
    return MixDraw(partner, rectangle, order, by_class, objects, paste)


def _rectangles(unit: Float[np.ndarray, "N 3"], *, crop_px: tuple[int, int]) -> Int[np.ndarray, "N 4"]:
    """Rectangles of a uniformly drawn share of the image around a uniformly drawn pixel, cut at the borders."""
    sides = np.array(crop_px)
    half = np.sqrt(unit[:, :1]) * sides / 2
    centre = unit[:, 1:] * sides
    first, last = np.rint(centre - half).clip(0, sides), np.rint(centre + half).clip(0, sides)
    return np.concatenate([first, last], axis=1).astype(np.int64)


def mix(images: Shaped[Tensor, "N C h w"], masks: Int64[Tensor, "N h w"], parameters: MixDraw) -> None:
    """Apply CutMix and ClassMix in place, where the images lie; every pixel keeps the label of its own image.

    Args:
        images: augmented images of any type; on the CPU fastest with channels last in memory.
        masks: theirs.
        parameters: of as many images.
    """
    if len(parameters.blended) == 0:
        return
    if images.device.type == "cpu":
        _mix_on_cpu(images.permute(0, 2, 3, 1).numpy(), masks.numpy(), parameters)
    else:
        _mix_on_device(images, masks, parameters)


def _mix_on_cpu(
    pictures: Shaped[np.ndarray, "N h w C"], labels: Int64[np.ndarray, "N h w"], parameters: MixDraw
) -> None:
    """One image after the other: OpenCV copies under a mask ten times faster than torch selects."""
    kept: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    waiting = {n: int(parameters.partner[n]) for n in parameters.blended.tolist()}
    while waiting:
        # What another image takes must be what was there before: first those that none takes of. In a ring one is kept.
        wanted = set(waiting.values())
        n = next((n for n in waiting if n not in wanted), None)
        if n is None:
            n = next(iter(waiting))
            kept[n] = (pictures[n].copy(), labels[n].copy())
        partner = waiting.pop(n)
        picture, label = kept.get(partner, (pictures[partner], labels[partner]))
        if not parameters.by_class[n]:
            top, left, bottom, right = parameters.rectangle[n].tolist()
            box = slice(top, bottom), slice(left, right)
            pictures[n][box], labels[n][box] = picture[box], label[box]
            continue
        assert parameters.class_order is not None, "drawn where any image goes through ClassMix"
        narrow = label.astype(np.uint8)
        counts = cv2.calcHist([narrow], [0], None, [LABELS], [0, LABELS])
        shown = np.flatnonzero(counts[:IGNORE_INDEX])
        chosen = np.zeros(LABELS, dtype=np.uint8)
        chosen[shown[parameters.class_order[n][shown].argsort()][: len(shown) // 2]] = 1
        take = cv2.LUT(narrow, chosen)
        _copy_where(picture, take, out=pictures[n])
        _copy_where(label.view(np.float64), take, out=labels[n].view(np.float64))


def _copy_where(source: np.ndarray, take: np.ndarray, *, out: np.ndarray) -> None:
    """Copy the pixels that `take` names; OpenCV knows no 64-bit integers, but moves any 8 bytes."""
    if not out.flags.c_contiguous or (source.ndim == 3 and source.shape[2] > MOST_CHANNELS):
        np.copyto(out, source, where=take.astype(bool)[:, :, None] if source.ndim == 3 else take.astype(bool))
        return
    result = cv2.copyTo(source, take, out)
    assert np.shares_memory(result, out), "OpenCV writes in place"


def _mix_on_device(images: Shaped[Tensor, "N C h w"], masks: Int64[Tensor, "N h w"], parameters: MixDraw) -> None:
    """All images at once, without the host waiting for the device."""
    rows, device = parameters.blended, masks.device
    mixed = torch.from_numpy(rows).to(device, non_blocking=True)
    partner = torch.from_numpy(parameters.partner[rows]).to(device, non_blocking=True)
    labels = masks[partner]
    take = _inside(parameters.rectangle[rows], like=labels)
    if parameters.by_class.any():
        assert parameters.class_order is not None, "drawn where any image goes through ClassMix"
        order = torch.from_numpy(parameters.class_order[rows].astype(np.float32)).to(device, non_blocking=True)
        by_class = torch.from_numpy(parameters.by_class[rows]).to(device, non_blocking=True)
        take |= _half_of_the_classes(labels, order) & by_class[:, None, None]
    masks[mixed] = torch.where(take, labels, masks[mixed])
    # 16-bit images are moved as signed ones, which torch can index.
    moved = images.view(torch.int16) if images.dtype == torch.uint16 else images
    moved[mixed] = torch.where(take[:, None], moved[partner], moved[mixed])


def _inside(rectangles: Int[np.ndarray, "R 4"], *, like: Int64[Tensor, "R h w"]) -> Bool[Tensor, "R h w"]:
    """Which pixels lie in the rectangles."""
    edges = torch.from_numpy(rectangles).to(like.device, non_blocking=True)[:, :, None]
    row = torch.arange(like.shape[1], device=like.device)
    column = torch.arange(like.shape[2], device=like.device)
    rows, columns = (row >= edges[:, 0]) & (row < edges[:, 2]), (column >= edges[:, 1]) & (column < edges[:, 3])
    return rows[:, :, None] & columns[:, None, :]


def _half_of_the_classes(labels: Int64[Tensor, "R h w"], order: Float[Tensor, "R 256"]) -> Bool[Tensor, "R h w"]:
    """Which pixels show one of the chosen classes; the lowest half of the shown ones by `order`, never void."""
    flat = labels.flatten(1)
    shown = torch.zeros(order.shape, dtype=torch.bool, device=labels.device)
    shown.scatter_(1, flat, torch.ones_like(flat, dtype=torch.bool))
    shown[:, IGNORE_INDEX] = False
    rank = order.masked_fill(~shown, 2.0).argsort(dim=1).argsort(dim=1)
    chosen = shown & (rank < shown.sum(dim=1, keepdim=True) // 2)
    return chosen.gather(1, flat).view(labels.shape)
