"""Do 95 % intervals hold the true mIoU in 95 of 100 cases, and does the paired test raise a false alarm in 5 of 100?

    python studies/intervals/coverage.py --sets 1000

Sets of 50, 200 and 1,000 images are made up whose true mIoU is known from many more images of the same kind. An image
has a difficulty of its own that all its pixels share, and pieces of 64 pixels are right or wrong together; where there
are groups, five images also share a part of the difficulty. Each line of results.csv is one question: how often the
interval held the truth, how often the truth lay below or above it, how wide it was, or how often a test of two models
of equal true score said that they differ.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from segwright.evaluation.hierarchical import Replicates, draw_scores, gap, interval
from segwright.evaluation.statistics import interval_of, paired_difference, per_unit_counts
from segwright.files import write_csv
from segwright.metrics import class_counts, score_counts
from segwright.types import ClassSet

CLASSES = ClassSet(("ground", "tree", "house", "car"), ((0, 0, 0),) * 4)
SHARES, PIECES, PIECE_PX = (0.5, 0.3, 0.15, 0.05), 64, 64
ACCURACY = np.array([2.2, 1.6, 1.2, 0.6])
HARD, GROUP_HARD, SEED_SHIFT, ONE_IMAGE = 0.6, 0.6, 0.12, 0.4
"""Standard deviations on the scale of the logit: images, groups, seeds, and a model on one class of one image."""
GROUP, RESAMPLES = 5, 1_000
_SEEDS = (1, 2, 3, 5)
TRUTH_IMAGES, TRUTH_SEEDS = 400_000, 200
OUT = Path(__file__).parent / "results.csv"


@dataclass(frozen=True)
class Scene:
    """Images: pieces of each true class (N, K) and how much harder (logit) each is."""

    pieces: np.ndarray
    hardness: np.ndarray


def scenes(rng: np.random.Generator, count: int, *, grouped: bool) -> Scene:
    shares = rng.dirichlet(2 * np.array(SHARES), count)
    hardness = rng.normal(0, HARD, count)
    if grouped:
        hardness += np.repeat(rng.normal(0, GROUP_HARD, -(-count // GROUP)), GROUP)[:count]
    return Scene(rng.multinomial(PIECES, shares), hardness)


def answers(rng: np.random.Generator, scene: Scene, *, shift: float = 0.0) -> np.ndarray:
    """The counts (N, 3, K) of a model; what is wrong goes to the next class, or to the one after it."""
    own = rng.normal(0, ONE_IMAGE, scene.pieces.shape)
    chance = 1 / (1 + np.exp(-(ACCURACY + shift - scene.hardness[:, None] + own)))
    right = rng.binomial(scene.pieces, chance)
    near = rng.binomial(scene.pieces - right, 0.6)
    far = scene.pieces - right - near
    confusion = np.zeros((*right.shape, right.shape[1]), dtype=np.int64)
    for k in range(CLASSES.num_classes):
        confusion[:, k, k] += right[:, k]
        confusion[:, k, (k + 1) % CLASSES.num_classes] += near[:, k]
        confusion[:, k, (k + 2) % CLASSES.num_classes] += far[:, k]
    return class_counts(confusion * PIECE_PX, CLASSES)


def miou(sums: np.ndarray) -> np.ndarray:
    return score_counts(sums.reshape(len(sums), 3, -1), CLASSES).miou


def truth(rng: np.random.Generator, *, grouped: bool, seeds: bool) -> float:
    """The mean over seeds of the mIoU of very many images."""
    if not seeds:
        return float(miou(answers(rng, scenes(rng, TRUTH_IMAGES, grouped=grouped)).sum(0, keepdims=True))[0])
    many = scenes(rng, TRUTH_IMAGES // 40, grouped=grouped)
    shifts = stats.norm.ppf((np.arange(TRUTH_SEEDS) + 0.5) / TRUTH_SEEDS) * SEED_SHIFT
    found = [float(miou(answers(rng, many, shift=shift).sum(0, keepdims=True))[0]) for shift in shifts]
    # The many images are the same for all seeds; what they are off by is known from the first question.
    plain = float(miou(answers(rng, many).sum(0, keepdims=True))[0])
    return float(np.mean(found)) - plain + truth(rng, grouped=grouped, seeds=False)


def ways(drawn: np.ndarray, per_unit: np.ndarray) -> Iterator[tuple[str, float, float]]:
    """The interval of the mIoU by each way that was looked at, from the same resamples."""
    units, table = len(per_unit), per_unit.reshape(len(per_unit), -1)
    whole = float(miou(table.sum(0, keepdims=True))[0])
    yield "percentile", *np.quantile(drawn, [0.025, 0.975])
    shown = interval_of(drawn, estimate=whole, units=units)
    yield "as reported", shown.low, shown.high
    left_out = miou(table.sum(0) - table)
    away = left_out.mean() - left_out
    skew = float((away**3).sum() / (6 * (away**2).sum() ** 1.5))
    bias = float(stats.norm.ppf(np.clip((drawn < whole).mean(), 1e-3, 1 - 1e-3)))
    tails = bias + np.array([-1.96, 1.96])
    yield "BCa", *np.quantile(drawn, stats.norm.cdf(bias + tails / (1 - skew * tails)))


def covered(rng: np.random.Generator, *, images: int, grouped: bool, sets: int) -> Iterator[list[Any]]:
    """How often each way holds the truth."""
    true = truth(rng, grouped=grouped, seeds=False)
    groups = [i // GROUP for i in range(images)]
    counts = [answers(rng, scenes(rng, images, grouped=grouped)) for _ in range(sets)]
    tables = [per_unit_counts(one, groups if grouped else None) for one in counts]
    found: dict[str, list[tuple[float, float]]] = {}
    for drawn, table in zip(_drawn(tables), tables, strict=True):
        for way, low, high in ways(drawn, table):
            found.setdefault(way, []).append((low, high))
    if grouped:
        blind = [next(ways(drawn, one))[1:] for drawn, one in zip(_drawn(counts), counts, strict=True)]
        found["percentile, groups not known"] = blind
    for way, edges in found.items():
        yield _line("interval of one model", way, images, np.array(edges), true=true, grouped=grouped)


def _drawn(tables: list[np.ndarray]) -> np.ndarray:
    """Scores (sets, R); the draws do not know the images, so that all sets may share them."""
    flat = [table.reshape(len(table), -1) for table in tables]
    return draw_scores(flat, miou, resamples=RESAMPLES).T


def covered_over_seeds(
    rng: np.random.Generator, *, images: int, seeds: int, sets: int, true: float
) -> Iterator[list[Any]]:
    """How often the interval over images and seeds holds the truth, and how often two equal recipes 'differ'."""
    pairs = [_pair(rng, scenes(rng, images, grouped=False), seeds=seeds) for _ in range(sets)]
    draws = _drawn([one for pair in pairs for one in pair]).reshape(sets, 2, seeds, -1)
    edges, alarms = [], 0
    for number, (pair, drawn) in enumerate(zip(pairs, draws, strict=True)):
        scores = miou(np.stack([one.sum(0) for one in pair])).reshape(2, seeds)
        first, second = (Replicates(scores[k], drawn[k].mean(0), images) for k in range(2))
        shown = interval(first, seed=number)
        edges.append((shown.low, shown.high))
        alarms += gap(first, second, seed=number).comparison.verdict() != "too close to call"
    name = f"{seeds} seeds" if seeds > 1 else "1 seed"
    yield _line("interval of a mean over seeds", name, images, np.array(edges), true=true, grouped=False)
    yield _alarms("two equal recipes", name, images, alarms, sets)


def _pair(rng: np.random.Generator, scene: Scene, *, seeds: int) -> list[np.ndarray]:
    """The counts of two equal recipes, each trained with some seeds."""
    return [answers(rng, scene, shift=rng.normal(0, SEED_SHIFT)) for _ in range(2 * seeds)]


def false_alarms(rng: np.random.Generator, *, images: int, sets: int) -> Iterator[list[Any]]:
    """How often two models of equal true score are told apart."""
    alarms = by_p = 0
    for seed in range(sets):
        scene = scenes(rng, images, grouped=False)
        found = paired_difference(answers(rng, scene), answers(rng, scene), miou, resamples=RESAMPLES, seed=seed)
        by_p += found.p_value < 0.05
        alarms += found.verdict() != "too close to call"
    yield _alarms("two equal models", "p < 0.05", images, by_p, sets)
    yield _alarms("two equal models", "verdict", images, alarms, sets)


def _line(question: str, way: str, images: int, edges: np.ndarray, *, true: float, grouped: bool) -> list[Any]:
    below, above = float((true < edges[:, 0]).mean()), float((true > edges[:, 1]).mean())
    where = f"groups of {GROUP}" if grouped else "images"
    width = float((edges[:, 1] - edges[:, 0]).mean())
    return [question, way, images, where, len(edges), 1 - below - above, below, above, width, float("nan")]


def _alarms(question: str, way: str, images: int, alarms: int, sets: int) -> list[Any]:
    unknown = float("nan")
    return [question, way, images, "images", sets, unknown, unknown, unknown, unknown, alarms / sets]


HEADS = ["question", "way", "images", "units", "sets", "covered", "below", "above", "width", "false_alarms"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", type=int, default=1_000)
    asked = parser.parse_args()
    rng = np.random.default_rng(0)
    over_seeds = truth(rng, grouped=False, seeds=True)
    rows: list[list[Any]] = []
    questions: list[Callable[[], Iterator[list[Any]]]] = [
        *(lambda n=n: false_alarms(rng, images=n, sets=asked.sets) for n in (50, 200)),
        *(
            lambda n=n, g=g: covered(rng, images=n, grouped=g, sets=asked.sets)
            for g in (False, True)
            for n in (50, 200)
        ),
        *(
            lambda s=s: covered_over_seeds(rng, images=200, seeds=s, sets=asked.sets, true=over_seeds)
            for s in (1, 2, 3, 5)
        ),
        *(lambda g=g: covered(rng, images=1000, grouped=g, sets=asked.sets) for g in (False, True)),
    ]
    for ask in questions:
        started = time.monotonic()
        for row in ask():
            rows.append(row)
            print(*(f"{value:.4f}" if isinstance(value, float) else value for value in row), sep=", ")
        print(f"  {time.monotonic() - started:.1f} s", flush=True)
        write_csv(OUT, [HEADS, *rows])


if __name__ == "__main__":
    main()
