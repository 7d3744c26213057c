"""Images on which runs are compared, each with what every run's model predicts of it.

Predictions of images are not kept, so those that are shown are made again.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np

from segwright.augment.matching import Matching
from segwright.bundle import load_bundle
from segwright.errors import RunError
from segwright.evaluation.counting import Network
from segwright.files import read_json
from segwright.hardware import choose_device
from segwright.pictures import as_rgb
from segwright.prediction.tta import Flips
from segwright.run_images import own_images
from segwright.runs import recipe_of
from segwright.studies.compare import RunComparison, Side
from segwright.types import SPLIT_NAMES

LONGER_SIDE_PX = 512


def show(
    found: RunComparison, *, count: int = 5, device: str = "auto", batch_size: int = 8, progress: bool = True
) -> tuple[Side, ...]:
    """Let every run's model label the images that are worth a look, as it did when it was scored.

    Raises:
        RunError: the scores are those of other data.
        SegwrightError: the images or a model are no longer there.
    """
    first = found.runs[0].run
    recipe = recipe_of(first)
    images = own_images(recipe, first, side=_side_of(first, found.split), progress=progress)
    wanted = found.chosen(count)
    names = {i: images.pack.ids[i] for i in images.indices}
    places = {name.rpartition("/")[2]: i for i, name in names.items()} | {name: i for i, name in names.items()}
    positions = {places[name]: name for name in wanted}
    preds: dict[str, list[np.ndarray]] = {name: [] for name in wanted}
    for one in found.runs:
        match, flips = _ways(one.run, found.split)
        network = Network(load_bundle(one.run), choose_device(device), batch_size, match=match, flips=flips)
        for counted in network.count(images.pack, list(positions)):
            preds[positions[counted.index]].append(_small(counted.pred, labels=True))
    scores = _scores_of(found)
    sides = []
    for position, name in positions.items():
        mask = images.pack.mask(position)
        assert mask is not None, "scored images have a mask"
        picture = _small(as_rgb(images.pack.image(position)), labels=False)
        sides.append(Side(name, wanted[name], scores[name], picture, _small(mask, labels=True), tuple(preds[name])))
    order = list(wanted)
    return tuple(sorted(sides, key=lambda side: order.index(side.id)))


def _ways(run: Path, split: str) -> tuple[Matching, Flips]:
    """How a model was asked when it was scored."""
    summary = read_json(run / "scores" / f"{split}.json")
    return summary.get("match", "none"), summary.get("flips", "none")


def _side_of(run: Path, split: str) -> str:
    """The side of a run's own images whose scores have a name: `val` of `val-moments-horizontal`.

    Raises:
        RunError: they are of other data, whose place no run keeps.
    """
    match, flips = _ways(run, split)
    side = split.removesuffix(f"-{flips}").removesuffix(f"-{match}")
    if side not in SPLIT_NAMES:
        problem = f"'{split}' are scores of other data, whose images cannot be shown"
        raise RunError(problem, mend="compare without them (--no-images)", file=run)
    return side


def _scores_of(found: RunComparison) -> Mapping[str, tuple[float, ...]]:
    return {name: tuple(map(float, column)) for name, column in zip(found.ids, found.image_scores.T, strict=True)}


def _small(pixels: np.ndarray, *, labels: bool) -> np.ndarray:
    """Pixels (H, W, ...) no longer than a page shows."""
    factor = LONGER_SIDE_PX / max(pixels.shape[:2])
    if factor >= 1:
        return pixels
    size = (max(1, round(pixels.shape[1] * factor)), max(1, round(pixels.shape[0] * factor)))
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_NEAREST if labels else cv2.INTER_AREA))
