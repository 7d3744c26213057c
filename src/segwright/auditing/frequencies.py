"""How often each class occurs, and what so many examples are good for.

    pixels, images, objects    of each class, how large the objects are, and which classes stand in one image
    width                      how uncertain the score of a class would be on a validation side of a fifth of the images
    weights                    class weights by every rule of `segwright.losses.class_weights`

The width is that of the range that holds the overlap (IoU) of a class on 95 % of all validation sides one might draw.
It is simulated: m images, or groups of images, that hold the class, as large as they are here, each with an overlap
from a beta distribution of mean 0.6 and a standard deviation of 0.2 (1000 / pixels)^0.45, kept within 0.1 and 0.25.
Against the bootstrap of measured scores of models trained for minutes, with as many images as each validation side had:

    CamVid, 101 images         sky 0.04 (measured 0.01), sign 0.06 (0.07), fence 0.04 (0.05), pedestrian 0.07 (0.09)
    crops of 64x128            vegetation in 458 images 0.03 (0.03), bicyclist in 39 images 0.17 (0.12)
    nuclei, 60 images          nucleus 0.08 (0.10)
    membranes, 4 images        membrane 0.19 (0.10), cell 0.19 (0.05)

Images that do not hold the class and are mistaken for it are not thought of.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Int

from segwright.auditing.findings import Answer, Finding
from segwright.auditing.labels import SIZE_BINS, Labels, measure_labels
from segwright.auditing.survey import Look, Survey
from segwright.losses.class_weights import CLASS_WEIGHTS, class_weights

__all__ = ["Labels", "examine", "interval_width", "measure_labels"]

VAL_SHARE = 0.2
LIKELY_IOU = 0.6
IOU_SPREAD = 0.2
SPREAD_PX = 1000
SPREAD_POWER = 0.45
LEAST_SPREAD, LARGEST_SPREAD = 0.1, 0.25

TOO_WIDE = 0.3
"""A score that is known to 15 points either way tells a good model from a bad one and no more."""

TOO_FEW = 10
"""By experience, fewer images to learn from than this teach a model their own peculiarities."""

TINY_SHARE = 0.005
"""A class of fewer of the pixels than this is easily passed over by a loss that counts pixels."""

_DRAWN_VALUES = 200_000


def examine(survey: Survey) -> Answer:
    """Count classes and say which ones are too rare.

    Returns:
        Facts: `images` (that were counted), `classes` (one mapping a class: `name`, `pixels`, `share` of the pixels
        that are a class, `images`, `objects`, `object_px` (5 %, 50 % and 95 % of the objects are no larger),
        `val_images`, `width` (None where no two validation images would hold it)), `together` (K rows of K counts:
        images that hold both), `weights` (rule -> one weight a class).
    """
    looks = [survey.looks[i] for i in survey.usable]
    counted = [(look, look.labels) for look in looks if look.labels is not None]
    learnt = [(look, labels) for look, labels in counted if look.split != "test"]
    num_classes = survey.classes.num_classes
    pixels = _stacked([labels.pixels for _, labels in learnt], num_classes)
    train = _stacked([labels.pixels for look, labels in learnt if look.split != "val"], num_classes)
    objects = _stacked([labels.objects for _, labels in learnt], num_classes)
    sizes = sum((labels.sizes for _, labels in learnt), start=np.zeros((num_classes, SIZE_BINS), dtype=np.int64))
    classes = [
        _described(name, k, looks=[look for look, _ in learnt], pixels=pixels, objects=objects, sizes=sizes[k])
        for k, name in enumerate(survey.classes.names)
    ]
    there = (pixels > 0).astype(np.int64)
    facts = {
        "images": len(learnt),
        "classes": classes,
        "together": (there.T @ there).tolist(),
        "weights": {
            rule: list(class_weights(rule, counts=train.sum(axis=0).tolist(), left_out=survey.classes.ignore_in_loss))
            for rule in CLASS_WEIGHTS
        },
    }
    if not learnt:
        return Answer(facts)
    ids = np.array([look.id for look, _ in learnt], dtype=object)
    found = [
        _absent(survey, classes),
        *(_rare(fact, ids, pixels[:, k], objects[:, k]) for k, fact in enumerate(classes)),
    ]
    return Answer(facts, tuple(finding for finding in found if finding is not None))


def interval_width(sizes: Sequence[int], *, val_images: int, seed: int = 0) -> float | None:
    """How wide the range is that holds 95 % of the scores that one class may get; see the head of this file.

    Args:
        sizes: pixels of the class in each image, or group of images, that holds it.
        val_images: how many such images, or groups, the validation side would have.
        seed: of the simulation.

    Returns:
        0 to 1; None for fewer than two, of which no interval can be made.
    """
    if val_images < 2 or not sizes:
        return None
    rng = np.random.default_rng(seed)
    draws = int(np.clip(_DRAWN_VALUES // val_images, 400, 4_000))
    weight = rng.choice(np.asarray(sizes, dtype=np.float64), size=(draws, val_images))
    spread = np.clip(IOU_SPREAD * (SPREAD_PX / weight) ** SPREAD_POWER, LEAST_SPREAD, LARGEST_SPREAD)
    concentration = LIKELY_IOU * (1 - LIKELY_IOU) / spread**2 - 1
    overlap = rng.beta(LIKELY_IOU * concentration, (1 - LIKELY_IOU) * concentration)
    low, high = np.quantile((overlap * weight).sum(axis=1) / weight.sum(axis=1), (0.025, 0.975))
    return float(high - low)


def _stacked(rows: Sequence[Int[np.ndarray, " K"]], num_classes: int) -> Int[np.ndarray, "N K"]:
    return np.array(rows, dtype=np.int64).reshape(len(rows), num_classes)


def _described(
    name: str,
    label: int,
    *,
    looks: Sequence[Look],
    pixels: Int[np.ndarray, "N K"],
    objects: Int[np.ndarray, "N K"],
    sizes: Int[np.ndarray, " bins"],
) -> dict[str, Any]:
    """The facts of one class."""
    held = np.flatnonzero(pixels[:, label]).tolist()
    units = _units([looks[i] for i in held], pixels[held, label])
    given = [i for i in held if looks[i].split == "val"]
    val_images = len(given) if any(look.split == "val" for look in looks) else round(VAL_SHARE * len(held))
    val_units = round(len(units) * val_images / max(len(held), 1))
    width = interval_width(units, val_images=val_units)
    return {
        "name": name,
        "pixels": int(pixels[:, label].sum()),
        "share": float(pixels[:, label].sum() / max(int(pixels.sum()), 1)),
        "images": len(held),
        "objects": int(objects[:, label].sum()),
        "object_px": _quantiles(sizes) if sizes.any() else None,
        "val_images": val_images,
        "width": None if width is None else round(width, 3),
    }


def _units(looks: Sequence[Look], pixels: Int[np.ndarray, " n"]) -> list[int]:
    """Pixels of images, those of one group together: neighbours tell little that is new."""
    sums: dict[str, int] = {}
    for look, count in zip(looks, pixels.tolist(), strict=True):
        unit = f"image {look.id}" if look.group is None else f"group {look.group}"
        sums[unit] = sums.get(unit, 0) + count
    return list(sums.values())


def _quantiles(sizes: Int[np.ndarray, " bins"]) -> list[int]:
    """Sizes of objects below which 5 %, 50 % and 95 % of them lie, from their histogram by powers of two."""
    below = np.concatenate([[0], np.cumsum(sizes)]) / sizes.sum()
    bins = np.flatnonzero(sizes)
    shares, powers = (np.stack([of[bins], of[bins + 1]], axis=1).ravel() for of in (below, np.arange(SIZE_BINS + 1)))
    return [round(2.0 ** float(np.interp(share, shares, powers))) for share in (0.05, 0.5, 0.95)]


def _absent(survey: Survey, classes: Sequence[dict[str, Any]]) -> Finding | None:
    names = [fact["name"] for fact in classes if fact["images"] == 0]
    if not names:
        return None
    shown = ", ".join(f"'{name}'" for name in names)
    return Finding("absent_class", f"No mask holds {shown}.", numbers={"classes": names})


def _rare(
    fact: dict[str, Any], ids: np.ndarray, pixels: Int[np.ndarray, " N"], objects: Int[np.ndarray, " N"]
) -> Finding | None:
    """Too few to learn from, too few to measure, or too small."""
    if fact["images"] == 0:
        return None
    width, learnt = fact["width"], fact["images"] - fact["val_images"]
    said = []
    if learnt < TOO_FEW:
        said.append(f"{learnt} to learn from are too few")
    if width is None:
        said.append("its score cannot be measured")
    elif width > TOO_WIDE:
        said.append(f"its score would be known to about {50 * width:.0f} points of 100 either way")
    if fact["share"] < TINY_SHARE:
        said.append(f"it takes {fact['share']:.2%} of the pixels, which a model without class weights may pass over")
    if not said:
        return None
    held = np.flatnonzero(pixels)
    order = held[np.argsort(-pixels[held], kind="stable")]
    return Finding(
        "rare_class",
        f"'{fact['name']}' is in {fact['images']:,} of {len(ids):,} images: {'; '.join(said)}.",
        ids=tuple(ids[order].tolist()),
        notes={ids[i]: f"{pixels[i]:,} pixels of '{fact['name']}' in {objects[i]:,} pieces" for i in order},
        numbers={key: fact[key] for key in ("name", "share", "images", "objects", "val_images", "width")},
    )
