"""Pictures unlike all others, by the local outlier factor (Breunig et al. 2000, https://doi.org/10.1145/342009.335388).

A picture is odd where its neighbours lie in a much denser place than it does, so sparse sorts of pictures are not odd
by themselves. What is compared are the main directions of light and texture, and of layout, edges and colours (or of
what an encoder sees), each brought to one scale. With a hundred neighbours a handful of foreign pictures that are like
one another stands out too. Of 60 foreign pictures, planted by threes in streets, their crops and cell images, it named
42 in its first hundredth; with twenty neighbours 37, an isolation forest 34, and features of MobileNetV2 in place of
layout, edges and colours 34.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from sklearn.decomposition import PCA
from sklearn.neighbors import LocalOutlierFactor

from segwright.auditing.findings import Finding
from segwright.auditing.noise import noise_like, tones_by_position
from segwright.auditing.survey import Survey
from segwright.auditing.tones import TEXTURE, Tones

SHARE = 0.01
"""At most so many pictures are named, the oddest."""

FACTOR = 1.6
"""Less than this is found in any data set."""

LEAST_PICTURES = 30
NEIGHBOURS = 100
DIRECTIONS = 8
REFERENCE = 4000
"""Pictures are compared with so many at most, drawn by chance: the time then grows with their number only."""

_LIGHT = ("brightness", "contrast", "darkest", "brightest", "entropy", "coarse_correlation", "saturation")


def comparable(survey: Survey) -> tuple[int, ...]:
    """Positions of the looks that are compared: all that could be read and are no noise."""
    noise = set(noise_like(survey))
    return tuple(i for i in tones_by_position(survey) if i not in noise)


def find_odd(survey: Survey, *, features: Float[np.ndarray, "N D"] | None = None) -> Finding | None:
    """Pictures unlike all others, at most one in a hundred, the oddest first.

    Args:
        survey: with tones.
        features: of the `comparable` looks, in their order; None for layout, edges and colours.
    """
    kept = comparable(survey)
    if len(kept) < LEAST_PICTURES:
        return None
    tones = tones_by_position(survey)
    seen = np.stack([tones[i].descriptor for i in kept]) if features is None else features
    factor = oddness([_light([tones[i] for i in kept]), seen])
    most = max(1, int(SHARE * len(kept)))
    places = [int(k) for k in np.argsort(-factor, kind="stable")[:most] if factor[k] > FACTOR]
    if not places:
        return None
    notes = {
        survey.looks[
            kept[k]
        ].id: f"{factor[k]:.1f} times as far from the pictures most like it as those are from theirs"
        for k in places
    }
    summary = f"{len(places)} of {len(kept)} pictures {'is' if len(places) == 1 else 'are'} unlike all others"
    return Finding("odd_image", summary, tuple(notes), notes=notes)


def _light(tones: Sequence[Tones]) -> Float[np.ndarray, "N D"]:
    """Light and texture, each column with unit variance."""
    level = np.array([one.brightness for one in tones])
    columns = [np.array([getattr(one, name) for one in tones]) for name in _LIGHT]
    columns += [np.array([getattr(one, name) for one in tones]) - level for name in ("red", "green", "blue")]
    # What varies by factors is compared as such: a few sharp pictures would drown all the rest.
    columns.append(np.log([one.sharpness + 0.05 for one in tones]))
    columns.append(np.log([one.spectral_flatness + 0.005 for one in tones]))
    columns.append(np.arctanh(np.clip([one.neighbour_correlation for one in tones], -0.999, 0.999)))
    both = np.column_stack([*columns, [one.descriptor[-TEXTURE:] for one in tones]])
    spread = both.std(axis=0)
    return np.asarray((both - both.mean(axis=0)) / np.where(spread > 1e-6, spread, 1.0))


def oddness(blocks: Sequence[Float[np.ndarray, "N _"]]) -> Float[np.ndarray, " N"]:
    """Local outlier factor of each row, about 1 for a usual one.

    Args:
        blocks: columns that say one sort of thing; each counts alike, however many columns it has.
    """
    count = len(blocks[0])
    chosen = np.sort(np.random.default_rng(0).permutation(count)[:REFERENCE])
    points = np.hstack([_main_directions(block, chosen) for block in blocks])
    if points.shape[1] == 0:
        return np.ones(count)
    neighbours = max(1, min(NEIGHBOURS, len(chosen) // 3))
    model = LocalOutlierFactor(n_neighbors=neighbours, novelty=count > len(chosen)).fit(points[chosen])
    # Its own score of the rows that it was fitted to leaves each out of its own neighbours.
    own = -np.asarray(model.negative_outlier_factor_, dtype=np.float64)
    if count == len(chosen):
        return own
    factor = -np.asarray(model.score_samples(points), dtype=np.float64)
    factor[chosen] = own
    return factor


def _main_directions(block: Float[np.ndarray, "N _"], chosen: np.ndarray) -> Float[np.ndarray, "N _"]:
    """With unit variance over the chosen rows; no column where all of them are equal."""
    rows = block.astype(np.float64)
    if float(rows[chosen].std(axis=0).max()) < 1e-9:
        return rows[:, :0]
    fitted = PCA(min(DIRECTIONS, block.shape[1], len(chosen) - 1), svd_solver="covariance_eigh").fit(rows[chosen])
    spread = np.sqrt(np.maximum(fitted.explained_variance_, 0.0))
    kept = spread > 1e-6 * max(float(spread[0]), 1e-12)
    return np.asarray(fitted.transform(rows)[:, kept] / spread[kept])
