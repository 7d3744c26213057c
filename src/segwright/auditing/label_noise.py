"""Masks that are probably wrong, judged by a model that was trained on the other images.

Two questions about every image, from the probabilities p of its pixels and its mask y:

    doubt   how surprised the model is: the soft minimum over pixels of p_y / m_y, with m_k the mean of p_k where y = k
            (class by class, so that classes that are hard to see are not all called wrong). The soft minimum
            sum_i w_i s_i, w = softmax((1 - s) / T), is that of Lad and Mueller 2023, https://arxiv.org/abs/2307.05080,
            with m as in confident learning, Northcutt 2021, https://arxiv.org/abs/1911.00068.
    swap    how much likelier it would be with two of its classes exchanged.

The two have no common scale, so each ranks the images by itself, and an image stands where its best place puts it:
first what leads one of the rankings, then the next of each. Before all come masks that the pictures themselves show to
lie aside (`alignment`): that is surer than any opinion. Doubt is reported where it is unusual for this data set, in
robust standard deviations; an exchange where it makes the mask far likelier.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float, Float32, UInt8

from segwright.auditing.findings import Answer, Finding
from segwright.auditing.opinions import Opinions, open_opinions
from segwright.auditing.survey import Survey
from segwright.errors import DataError

TEMPERATURE = 0.1
LEAST_SWAP_SHARE = 0.01
"""Pixels of the two classes together, as a share of the image."""

UNUSUAL = 4.0
"""Robust standard deviations above the median from which doubt is reported."""

LEAST_SWAP_GAIN = 1.5
"""Rise of the mean log-likelihood from which an exchange is reported; a hard class alone gives less."""

MOST_REPORTED = 0.15
"""Share of the images that are reported at most, by the same question."""


@dataclass(frozen=True)
class Suspicion:
    """What the model says of one mask.

    Attributes:
        doubt: 1 - soft minimum; 0 where the model agrees everywhere.
        swap_gain: rise of the mean log-likelihood, over the pixels of both, by exchanging two classes.
        swap: the two labels.
        region: share of the image that the largest connected piece of confident disagreement takes.
        region_labels: its label in the mask, and the model's.
    """

    doubt: float
    swap_gain: float
    swap: tuple[int, int]
    region: float
    region_labels: tuple[int, int]


def examine(survey: Survey, probabilities: Path, *, moved: Sequence[str] = ()) -> Answer:
    """Rank the masks by how much a model contradicts them.

    Args:
        survey: whose images the probabilities are of.
        probabilities: a file of `opinions`; images that it does not hold are not judged.
        moved: ids whose masks lie aside, the surest first.

    Raises:
        DataError: the file cannot be read, or holds other classes or none of these images.
    """
    with open_opinions(probabilities) as opinions:
        positions = [i for i in survey.usable if survey.looks[i].id in opinions]
        if opinions.classes != survey.classes.names:
            mend = f"the data have {', '.join(survey.classes.names)}"
            raise DataError(f"is of other classes ({', '.join(opinions.classes)})", mend=mend, file=probabilities)
        if not positions:
            raise DataError("holds none of these images", mend="make it from the same data", file=probabilities)
        usual = _usual(survey, positions, opinions)
        seen = {survey.looks[i].id: judge(*_pair(survey, i, opinions), usual=usual) for i in positions}
    measured = {
        "swap": np.array([one.swap_gain for one in seen.values()]),
        "doubt": _unusual([one.doubt for one in seen.values()]),
    }
    names = list(seen)
    facts = {
        "judged": len(seen),
        "ranking": list(dict.fromkeys([*moved, *(names[i] for i in _interleaved(list(measured.values())))])),
        "measured": {
            name: {key: round(float(values[i]), 3) for key, values in measured.items()} for i, name in enumerate(names)
        },
        "mean_probability_of_the_label": {
            name: None if value is None else round(value, 3)
            for name, value in zip(survey.classes.names, _listed(usual), strict=True)
        },
    }
    return Answer(facts, tuple(_findings(survey, seen, measured)))


def _interleaved(rankings: list[Float[np.ndarray, " N"]]) -> list[int]:
    """Positions by their best place in any ranking, where more is worse; the first ranking wins ties.

    Where a ranking has nothing against an image (0 or less), it gives it no place.
    """
    places = []
    for values in rankings:
        place = np.empty(len(values), dtype=np.int64)
        place[np.argsort(-values, kind="stable")] = np.arange(len(values))
        places.append(np.where(values > 0, place, len(values)))
    first = np.min(places, axis=0)
    which = np.argmin(places, axis=0)
    return [int(i) for i in np.lexsort((which, first))]


def _pair(survey: Survey, position: int, opinions: Opinions) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities, and the mask at their size."""
    _, mask = survey.read(position)
    assert mask is not None, "usable looks have masks"
    probs = opinions.of(survey.looks[position].id)
    height, width = probs.shape[1:]
    scaled = (
        mask if mask.shape == (height, width) else cv2.resize(mask, (width, height), interpolation=cv2.INTER_NEAREST)
    )
    return probs, scaled


def _usual(survey: Survey, positions: list[int], opinions: Opinions) -> Float[np.ndarray, " K"]:
    """Mean probability of each class where the masks say so; NaN for a class without a pixel."""
    num_classes = survey.classes.num_classes
    total, count = np.zeros(num_classes), np.zeros(num_classes)
    for i in positions:
        probs, mask = _pair(survey, i, opinions)
        for k in np.unique(mask[mask < num_classes]):
            there = mask == k
            total[k] += probs[k][there].sum(dtype=np.float64)
            count[k] += there.sum()
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def judge(
    probs: Float32[np.ndarray, "K h w"],
    mask: UInt8[np.ndarray, "h w"],
    *,
    usual: Float[np.ndarray, " K"],
) -> Suspicion:
    """Ask both questions of one image.

    Args:
        probs: of a model that was not trained on it, all above 0.
        mask: labels 0..K-1, all else is void; at the size of `probs`.
        usual: (K,) mean probability of each label's own pixels in the whole set.
    """
    num_classes = len(probs)
    valid = mask < num_classes
    label = np.where(valid, mask, 0).astype(np.int64)
    own = np.take_along_axis(probs, label[None], axis=0)[0]
    relative = np.clip(own / usual[label], 0, 1)[valid]
    swap_gain, swap = _best_swap(probs, mask)
    region, labels = _largest_region(probs, mask, usual=usual)
    return Suspicion(
        doubt=1 - soft_minimum(relative),
        swap_gain=swap_gain,
        swap=swap,
        region=region,
        region_labels=labels,
    )


def soft_minimum(scores: Float[np.ndarray, " P"], *, temperature: float = TEMPERATURE) -> float:
    """sum_i w_i s_i with w = softmax((1 - s) / T); 1 where there is no score."""
    if scores.size == 0:
        return 1.0
    weights = np.exp((scores.min() - scores.astype(np.float64)) / temperature)
    return float((weights * scores).sum() / weights.sum())


def _best_swap(probs: Float32[np.ndarray, "K h w"], mask: UInt8[np.ndarray, "h w"]) -> tuple[float, tuple[int, int]]:
    """Gain of the best exchange of two classes, a pixel of either, and the two."""
    num_classes = len(probs)
    present = [int(k) for k in np.unique(mask[mask < num_classes])]
    log_p = np.log(probs)
    sums = np.zeros((num_classes, num_classes))
    count = np.zeros(num_classes)
    for k in present:
        there = mask == k
        count[k] = there.sum()
        sums[k] = log_p[:, there].sum(axis=1, dtype=np.float64)
    own = np.diag(sums)
    gain = sums + sums.T - own[:, None] - own[None, :]
    pixels = count[:, None] + count[None, :]
    mean = np.where(pixels >= LEAST_SWAP_SHARE * mask.size, gain / np.maximum(pixels, 1), -np.inf)
    np.fill_diagonal(mean, -np.inf)
    if not np.isfinite(mean).any():
        return 0.0, (0, 0)
    a, b = np.unravel_index(int(mean.argmax()), mean.shape)
    return float(mean[a, b]), (int(min(a, b)), int(max(a, b)))


def _largest_region(
    probs: Float32[np.ndarray, "K h w"], mask: UInt8[np.ndarray, "h w"], *, usual: Float[np.ndarray, " K"]
) -> tuple[float, tuple[int, int]]:
    """Share of the largest connected piece in which the model is sure of another class, and its two labels."""
    guess = probs.argmax(axis=0)
    sure = probs.max(axis=0) >= np.nan_to_num(usual, nan=1.0)[guess]
    against = (sure & (guess != mask) & (mask < len(probs))).astype(np.uint8)
    count, numbered, stats, _ = cv2.connectedComponentsWithStats(against, connectivity=8)
    if count < 2:
        return 0.0, (0, 0)
    largest = 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax())
    there = numbered == largest
    labels = int(np.bincount(mask[there]).argmax()), int(np.bincount(guess[there]).argmax())
    return float(there.mean()), labels


def _unusual(values: list[float]) -> Float[np.ndarray, " N"]:
    """Robust standard deviations above the median; Leys 2013, https://doi.org/10.1016/j.jesp.2013.03.013."""
    array = np.array(values)
    middle = np.median(array)
    spread = 1.4826 * np.median(np.abs(array - middle))
    return np.asarray((array - middle) / max(float(spread), 1e-3))


def _listed(usual: Float[np.ndarray, " K"]) -> list[float | None]:
    return [float(value) if np.isfinite(value) else None for value in usual]


def _findings(survey: Survey, seen: dict[str, Suspicion], measured: dict[str, np.ndarray]) -> list[Finding]:
    """Each image stands in the first finding that explains it: swapped, else doubtful."""
    kinds = {"swapped_classes": ("swap", LEAST_SWAP_GAIN), "doubtful_mask": ("doubt", UNUSUAL)}
    names: list[str] = list(seen)
    findings: list[Finding] = []
    told: set[str] = set()
    for kind, (key, least) in kinds.items():
        order = np.argsort(-measured[key], kind="stable")[: max(1, round(MOST_REPORTED * len(names)))]
        ids = [names[i] for i in order if measured[key][i] >= least and names[i] not in told]
        told |= set(ids)
        if ids:
            notes = {name: _note(kind, seen[name], survey.classes.names) for name in ids}
            findings.append(Finding(kind, _SUMMARIES[kind].format(count=_counted(len(ids))), tuple(ids), notes))
    return findings


_SUMMARIES = {
    "swapped_classes": "In {count} two classes seem to have changed places.",
    "doubtful_mask": "A model that learnt from the other images contradicts {count}.",
}


def _counted(count: int) -> str:
    return "1 mask" if count == 1 else f"{count} masks"


def _note(kind: str, one: Suspicion, classes: tuple[str, ...]) -> str:
    if kind == "swapped_classes":
        return f"{classes[one.swap[0]]} and {classes[one.swap[1]]}"
    marked, meant = one.region_labels
    if one.region == 0 or marked == meant:
        return "many small pieces look like other classes"
    return f"{100 * one.region:.1f} % of the image is marked {classes[marked]} and looks like {classes[meant]}"
