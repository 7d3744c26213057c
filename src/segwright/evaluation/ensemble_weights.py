"""Weights for an average of models, fitted on validation images.

    p = sum_m w_m p_m,   w_m >= 0,  sum w_m = 1

By likelihood: the w that make the true labels likeliest. The mean log-likelihood is concave in w, and expectation
maximisation climbs to its top (Dempster 1977, https://doi.org/10.1111/j.2517-6161.1977.tb01600.x):

    w_m <- mean over pixels of  w_m p_m(y) / sum_j w_j p_j(y)

By mIoU: the best of many points of the simplex, then steps of falling size around it; mIoU has no slope to follow.

What is fitted on images flatters on the same images, so the gain is measured by halves: weights fitted on one half of
the images (whole groups) are scored on the other (cross-fitting, Chernozhukov 2018, https://arxiv.org/abs/1608.00060).
So is a soup, which averages the weights of networks and not their answers: one is made of each half's weights.

    M models   N images   K classes   P pixels
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Float16, Int64, Shaped, UInt8
from torch import Tensor, nn

from segwright.bundle import Bundle
from segwright.data.eval_loader import EvalLoader
from segwright.data.pack import Pack
from segwright.evaluation.statistics import Comparison, paired_difference
from segwright.hardware import autocast, choose_device, choose_precision
from segwright.metrics import class_counts, score, score_counts
from segwright.prediction.fitting import scale_down
from segwright.types import IGNORE_INDEX, ClassSet

By = Literal["equal", "likelihood", "miou"]
Soup = Callable[[Sequence[float], Sequence[int]], "Answers"]

MOST_NUMBERS = 300_000_000
"""Probabilities that are kept, in half precision: 600 MB. Of more, the same share of each image's pixels is drawn."""

_STEPS, _STILL = 500, 1e-6
_CANDIDATES, _ROUNDS = 64, 24
_LEAST = 1e-7


@dataclass(frozen=True)
class Answers:
    """What several models say of the same pixels.

    Attributes:
        probs: of each model.
        labels: the true ones; pixels without are left out.
        image: which image each pixel is of, by its place in `positions`.
        positions: of the images in the pack.
        share: of the labelled pixels that are kept.
    """

    probs: Float16[np.ndarray, "M K P"]
    labels: UInt8[np.ndarray, " P"]
    image: Int64[np.ndarray, " P"]
    positions: tuple[int, ...]
    share: float = 1.0

    def of(self, images: Shaped[np.ndarray, " n"]) -> Answers:
        """The pixels of some images."""
        chosen = np.isin(self.image, images)
        return replace(self, probs=self.probs[:, :, chosen], labels=self.labels[chosen], image=self.image[chosen])


@dataclass(frozen=True)
class EnsembleFit:
    """Weights and what they are worth.

    Attributes:
        weights: (M,) fitted on all images.
        alone: mIoU of each model by itself.
        together: mIoU of the average, or of the soup, with weights from the other half of the images.
        best: the model with the best mIoU.
        gain: `together` against it, on the same images.
        positions: of the images in the pack.
        confusion: of each image that `together` counts, of the pixels that were asked about.
    """

    weights: tuple[float, ...]
    alone: tuple[float, ...]
    together: float
    best: int
    gain: Comparison
    positions: tuple[int, ...]
    confusion: Int64[np.ndarray, "N K K"]


def ask(
    bundles: Sequence[Bundle], pack: Pack, indices: Sequence[int], *, batch_size: int = 8, device: str = "auto",
    share: float | None = None, seed: int = 0,
) -> Answers:  # fmt: skip
    """Let models answer for the labelled pixels of images.

    Where not all pixels can be kept, the same share of every image is drawn, whatever its size and its tiles, so that
    sums over pixels weigh images as the whole does. An image's draw depends on the seed and its position alone: models
    that are asked apart with the same share answer for the same pixels.

    Args:
        bundles: of the same classes and the same working size.
        pack: the images.
        indices: positions in it of labelled images.
        batch_size: images at a time.
        device: auto, cpu, cuda ...
        share: of the labelled pixels to keep; None: as many as `MOST_NUMBERS` leaves room for.
        seed: of the draw.
    """
    labelled = [int(i) for i in indices if pack.has_mask[int(i)]]
    places = {i: place for place, i in enumerate(labelled)}
    if share is None:
        pixels = int(pack.class_pixels[labelled, :IGNORE_INDEX].sum())
        share = min(1.0, MOST_NUMBERS / (len(bundles) * bundles[0].classes.num_classes * max(1, pixels)))
    draws = {i: np.random.default_rng([seed, i]) for i in labelled}
    probs, labels, image = [], [], []
    for number, truth, said in _answers(bundles, pack, labelled, batch_size=batch_size, device=device):
        valid = np.flatnonzero(truth != IGNORE_INDEX)
        chosen = valid if share >= 1 else valid[draws[number].random(len(valid)) < share]
        probs.append(said[:, :, chosen].astype(np.float16))
        labels.append(truth[chosen].astype(np.uint8))
        image.append(np.full(len(chosen), places[number], dtype=np.int64))
    return Answers(np.concatenate(probs, axis=2), np.concatenate(labels), np.concatenate(image), tuple(labelled), share)


def _answers(
    bundles: Sequence[Bundle], pack: Pack, labelled: list[int], *, batch_size: int, device: str
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Position, labels (P,) and probabilities (M, K, P) of each image, or of each tile of a large one."""
    where = choose_device(device)
    precision = choose_precision("auto", device=where)
    models = [bundle.model.to(where).eval() for bundle in bundles]
    longest_px = working_size_of(bundles[0])
    with torch.inference_mode(), autocast(precision, device=where):
        for batch in EvalLoader(pack, labelled, batch_size=batch_size, device=where):
            assert batch.masks is not None, "images are labelled"
            size = batch.masks.shape[1:]
            images = _scaled(batch.images, longest_px, whole_px=int(pack.sizes[int(batch.index[0])].max()))
            said = torch.stack([_probs(model(images), size) for model in models], dim=1).flatten(3).cpu().numpy()
            truth = batch.masks.flatten(1).cpu().numpy()
            yield from zip(batch.index.tolist(), truth, said, strict=True)


def working_size_of(bundle: Bundle) -> int | None:
    """The longer side that images were scaled down to for a model; None for none."""
    size: int | None = (bundle.info.get("input") or {}).get("working_size_px")
    return size


def _scaled(images: Tensor, longest_px: int | None, *, whole_px: int) -> Tensor:
    """Images, or tiles of one whose longer side is `whole_px`, as small as the models saw theirs."""
    if longest_px is None or whole_px <= longest_px:
        return images
    side = max(1, round(max(images.shape[2:]) * longest_px / whole_px))
    small = [scale_down(image, longer_side_px=side) for image in images.cpu().numpy()]
    return torch.from_numpy(np.stack(small)).to(images.device)


def _probs(logits: Tensor, size: torch.Size) -> Tensor:
    logits = logits.float()
    if logits.shape[2:] != size:
        logits = nn.functional.interpolate(logits, size=size, mode="bilinear")
    return logits.softmax(dim=1)


def fit(
    answers: Answers, classes: ClassSet, *, by: By, groups: Sequence[object] | None = None, soup: Soup | None = None
) -> EnsembleFit:
    """Find the weights, and measure by halves what they are worth.

    Args:
        answers: of the models.
        classes: with the rules by which mIoU is counted.
        by: what the weights are to make best.
        groups: one a position in the pack; images of one group stay together.
        soup: where not answers are averaged but weights of networks: what the one network of these weights answers
            for the images at these positions, of the same share of their pixels.
    """
    count = len(answers.positions)
    units = [i if groups is None else groups[i] for i in answers.positions]
    sides = _halves(units)
    own = [_per_image(answers, _corner(m, len(answers.probs)), count, classes) for m in range(len(answers.probs))]
    alone = [float(score(one.sum(0), classes).miou) for one in own]
    best = int(np.argmax(alone))
    mixed = np.zeros_like(own[0])
    for side in (0, 1):
        held = np.flatnonzero(sides == side)
        weights = weights_of(answers.of(np.flatnonzero(sides != side)), classes, by=by)
        if soup is None:
            mixed += _per_image(answers.of(held), weights, count, classes)
        elif len(held):
            told = soup(weights.tolist(), [answers.positions[place] for place in held])
            mixed[held] = _per_image(told, np.ones(1), len(held), classes)
    gain = _gain(mixed, own[best], classes, units=units)
    return EnsembleFit(
        weights=tuple(weights_of(answers, classes, by=by).tolist()),
        alone=tuple(alone),
        together=float(score(mixed.sum(0), classes).miou),
        best=best,
        gain=gain,
        positions=answers.positions,
        confusion=mixed,
    )


def weights_of(answers: Answers, classes: ClassSet, *, by: By) -> Float[np.ndarray, " M"]:
    """The weights that are best for these pixels."""
    models = len(answers.probs)
    if by == "equal" or models == 1 or not len(answers.labels):
        return np.full(models, 1 / models)
    learnt = ~np.isin(answers.labels, classes.ignore_in_loss)
    of_truth = np.take_along_axis(answers.probs, answers.labels[None, None].astype(np.int64), axis=1)[:, 0]
    likely = _by_likelihood(of_truth[:, learnt])
    return likely if by == "likelihood" else _by_miou(answers, classes, start=likely)


def _by_likelihood(of_truth: Shaped[np.ndarray, "M P"]) -> Float[np.ndarray, " M"]:
    """Expectation maximisation from equal weights, on probabilities of the true labels."""
    models = len(of_truth)
    weights = np.full(models, 1 / models)
    if not of_truth.shape[1]:
        return weights
    given = np.maximum(of_truth.astype(np.float32), _LEAST)
    for _ in range(_STEPS):
        mixed = weights.astype(np.float32) @ given
        moved = weights * (given / mixed).mean(axis=1, dtype=np.float64)
        still = np.abs(moved - weights).max() < _STILL
        weights = moved / moved.sum()
        if still:
            break
    return weights


def _by_miou(
    answers: Answers, classes: ClassSet, *, start: Float[np.ndarray, " M"], seed: int = 0
) -> Float[np.ndarray, " M"]:
    models, rng = len(answers.probs), np.random.default_rng(seed)
    tried = [start, np.full(models, 1 / models), *np.eye(models), *rng.dirichlet(np.ones(models), size=_CANDIDATES)]
    scores = [_miou(answers, weights, classes) for weights in tried]
    best, top = tried[int(np.argmax(scores))], max(scores)
    for number in range(_ROUNDS):
        step = 0.3 * 0.85**number
        near = np.clip(best + step * rng.normal(size=models), 0, None)
        if near.sum() > 0:
            near = near / near.sum()
            value = _miou(answers, near, classes)
            best, top = (near, value) if value > top else (best, top)
    return np.asarray(best)


def _miou(answers: Answers, weights: np.ndarray, classes: ClassSet) -> float:
    pred = _mixed(answers, weights)
    k = classes.num_classes
    confusion = np.bincount(answers.labels.astype(np.int64) * k + pred, minlength=k * k).reshape(k, k)
    return float(score(confusion, classes).miou)


def _mixed(answers: Answers, weights: np.ndarray) -> Int64[np.ndarray, " P"]:
    total = np.zeros(answers.probs.shape[1:], dtype=np.float32)
    for weight, probs in zip(weights, answers.probs, strict=True):
        if weight:
            total += np.float32(weight) * probs
    return np.asarray(total.argmax(axis=0))


def _per_image(answers: Answers, weights: np.ndarray, count: int, classes: ClassSet) -> Int64[np.ndarray, "N K K"]:
    k = classes.num_classes
    places = (answers.image * k + answers.labels) * k + _mixed(answers, weights)
    return np.bincount(places, minlength=count * k * k).reshape(count, k, k)


def _gain(a: np.ndarray, b: np.ndarray, classes: ClassSet, *, units: Sequence[object]) -> Comparison:
    """How much better the counts (N, K, K) of one model are than those of another."""

    def miou(sums: np.ndarray) -> np.ndarray:
        return np.asarray(score_counts(sums, classes).miou)

    return paired_difference(class_counts(a, classes), class_counts(b, classes), miou, groups=units)


def _corner(place: int, models: int) -> np.ndarray:
    return np.asarray(np.eye(models)[place])


def _halves(units: Sequence[object], *, seed: int = 0) -> Int64[np.ndarray, " N"]:
    """0 or 1 for each image; images of one group alike, about as many on either side."""
    names = list(dict.fromkeys(units))
    order = np.random.default_rng(seed).permutation(len(names))
    side = {names[i]: place % 2 for place, i in enumerate(order)}
    return np.array([side[unit] for unit in units], dtype=np.int64)
