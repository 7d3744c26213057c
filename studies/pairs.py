"""What a model gains over the one it is made of, seed by seed on the same images; for studies whose pairs are no rows.

    gain = mean over seeds of  miou(a, seed) - miou(b, seed)

Images are drawn alike for both and for all seeds, and the seeds' own spread is added; see
`segwright.evaluation.hierarchical`. Both of a pair share a seed, so their difference is taken before the spread.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from segwright.evaluation.hierarchical import Replicates, draw_scores, interval
from segwright.evaluation.statistics import Interval
from segwright.metrics import Definition, class_counts, score_counts
from segwright.types import ClassSet


def gain(pairs: Sequence[tuple[Path, Path]], classes: ClassSet, *, definition: Definition = "declared") -> Interval:
    """The mean gain and its interval.

    Args:
        pairs: of each seed the scores (`val.npz`) of the one and of the other.
        classes: with the rules by which mIoU is counted.
        definition: of the mIoU.
    """
    own = [[_counts(file, classes, definition) for file in pair] for pair in pairs]
    ids = sorted(set.intersection(*(set(one) for pair in own for one in pair)))
    tables = [np.stack([one[name] for name in ids]) for pair in own for one in pair]

    def miou(sums: np.ndarray) -> np.ndarray:
        return np.asarray(score_counts(sums.reshape(len(sums), 3, -1), classes, definition).miou)

    whole = np.array([float(miou(table.sum(0, keepdims=True))[0]) for table in tables])
    drawn = draw_scores(tables, miou)
    gains = whole[0::2] - whole[1::2]
    return interval(Replicates(gains, (drawn[:, 0::2] - drawn[:, 1::2]).mean(axis=1), len(ids)))


def _counts(file: Path, classes: ClassSet, definition: Definition) -> dict[str, np.ndarray]:
    with np.load(file) as stored:
        counts = class_counts(stored["confusion"], classes, definition)
        # Copies on disk stand in a folder of their own, under the names that images of arrays have.
        names = [name.rpartition("/")[2] for name in stored["ids"].tolist()]
        return dict(zip(names, counts.reshape(len(counts), -1), strict=True))
