"""How the score grows with the number of training images, and what more of them would bring.

Runs on nested parts of the training images (an eighth, a quarter, a half, three quarters, all) are scored on the same
validation images. In each seed's order images, or groups of images that belong together, join one after the other. All
runs are trained for the same number of steps (or minutes): fewer images are seen more often, so that the curve tells of
the images and not of the budget. What was learnt is read from an inverse power law (Hestness et al. 2017,
https://arxiv.org/abs/1712.00409; for small data Mukherjee et al. 2003, https://doi.org/10.1089/106652703321825928):

    mIoU(n) = a - b n^-c      n training images   a the score with endless images   b, c >= 0

Intervals draw validation images (or their groups) and seeds anew and fit each time. They say nothing of the law itself:
so the law without its largest part is held against what the largest part gave, and that is told too.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from jaxtyping import Float

from segwright.errors import RunError, SplitError
from segwright.evaluation.statistics import LEVEL, Interval
from segwright.files import read_arrays, read_json, write_json, write_yaml
from segwright.metrics import class_counts, score_counts
from segwright.recipe import DEFAULT_EPOCHS, Recipe
from segwright.studies.grid import read_study, trials
from segwright.studies.machines import Machines
from segwright.studies.runner import run_study
from segwright.studies.state import is_done, place_of
from segwright.training.preparation import Prepared, groups_of, prepare
from segwright.types import ClassSet

SHARES = (0.125, 0.25, 0.5, 0.75, 1.0)
RESAMPLES = 2000
EXPONENTS = np.geomspace(0.05, 2.0, 200)
"""The exponents c that are tried; with c given, a and b are a line's."""

LINE_POINTS = 60
"""Of the law where it was measured; a third as many beyond."""

LEAST_SIZES = 4
"""One more than the law has numbers."""


@dataclass(frozen=True)
class Point:
    """The score with so many training images.

    Attributes:
        images: mean of the runs.
        mean: of the runs' mIoU.
        deviation: of the runs; None of a single one.
        runs: how many.
    """

    images: float
    mean: float
    deviation: float | None
    runs: int


@dataclass(frozen=True)
class Curve:
    """What was measured, the law that fits it, and what the law foretells.

    Attributes:
        out: the study's folder.
        points: smallest part first.
        law: a, b and c.
        more: images that were asked about.
        gain: in mIoU, with so many more.
        foretold: the mIoU with all images by a law that has not seen it.
        line: the law and its interval, from the smallest part to what was asked about: images, mIoU, low and high.
    """

    out: Path
    points: tuple[Point, ...]
    law: tuple[float, float, float]
    more: int
    gain: Interval
    foretold: Interval
    line: tuple[tuple[float, float, float, float], ...]

    @property
    def sentences(self) -> tuple[str, ...]:
        """What was found, in words."""
        a, b, c = self.law
        gain, last, before = self.gain, self.points[-1], self.points[-2]
        ends = f"{100 * gain.low:+.1f} to {100 * gain.high:+.1f}"
        held = "within" if self.foretold.low <= last.mean <= self.foretold.high else "outside of"
        return (
            f"mIoU(n) = {a:.3f} - {b:.3f} n^-{c:.2f}, fitted to {len(self.points)} sizes",
            f"With {self.more} more images expect {100 * gain.estimate:+.1f} points of mIoU ({ends})",
            f"Checked: up to {before.images:.0f} images the law foretells {self.foretold.estimate:.4f} "
            f"({self.foretold.low:.4f} to {self.foretold.high:.4f}) for {last.images:.0f}; "
            f"measured {last.mean:.4f}, {held} the interval",
        )


def learning_curve(
    recipe: Recipe, out: Path, *, name: str, seeds: Sequence[int], more: int, machines: Machines, progress: bool
) -> Curve:
    """Train on nested parts of the training images, fit the law, and write `learning-curve.json`.

    Args:
        recipe: what is trained, with absolute paths; its budget is that of all images.
        out: the study's folder.
        name: of the study.
        seeds: of the trainings, and of the order in which images join.
        more: so many more images are asked about.
        machines: where the runs run.
        progress: show how far it is.

    Raises:
        SplitError: there are too few images, or groups of them, to take parts.
        RunError: too many runs failed for a curve.
        RunStopped: a signal ended it; the same call goes on.
    """
    images = prepare(recipe, progress=progress)
    groups = groups_of(recipe, images)
    rows = [row for seed in seeds for row in _rows(recipe, images, groups, out=out, seed=seed)]
    tree = {
        "name": name,
        "question": "How does the score grow with the number of training images?",
        "base": recipe.model_dump(mode="json", exclude_defaults=True),
        "list": rows,
    }
    write_yaml(out / "learning-curve.yaml", tree)
    study = read_study(out / "learning-curve.yaml")
    run_study(study, out, launcher=machines.begin(out), need=machines.need, jobs=machines.at_once, progress=progress)
    runs = [place_of(out, trial.name).run for trial in trials(study)]
    curve = _curve(out, _grouped(runs, sizes=len(SHARES)), images.classes, _group_names(images, groups), more=more)
    write_json(out / "learning-curve.json", _told(curve))
    return curve


def parts_of(
    ids: Sequence[str], groups: Sequence[str | None], *, seed: int, shares: Sequence[float] = SHARES
) -> list[list[str]]:
    """Nested parts of some images, groups whole, each the nearest to its share; the last holds all.

    Raises:
        SplitError: two parts would be the same.
    """
    members: dict[str, list[str]] = {}
    for name, group in zip(ids, groups, strict=True):
        members.setdefault(f"image {name}" if group is None else f"group {group}", []).append(name)
    units = [members[key] for key in sorted(members)]
    Random(f"learning curve {seed}").shuffle(units)
    ends = np.cumsum([len(unit) for unit in units])
    lengths = [int(np.abs(ends - share * len(ids)).argmin()) + 1 for share in shares]
    if len(set(lengths)) < len(lengths):
        problem = f"{len(ids)} training images in {len(units)} groups cannot be divided into {len(shares)} parts"
        raise SplitError(problem, mend="a learning curve needs more images, or smaller groups")
    return [sorted(name for unit in units[:length] for name in unit) for length in lengths]


def _rows(
    recipe: Recipe, images: Prepared, groups: Sequence[str | None], *, out: Path, seed: int
) -> list[dict[str, Any]]:
    """The rows of one seed, smallest part first; the split of each stands in a file that its content names."""
    train = images.indices("train").tolist()
    others = {side: [images.pack.ids[i] for i in images.indices(side).tolist()] for side in ("val", "test")}
    parts = parts_of([images.pack.ids[i] for i in train], [groups[i] for i in train], seed=seed)
    rows = []
    for share, part in zip(SHARES, parts, strict=True):
        told = hashlib.sha256("\n".join(part).encode()).hexdigest()[:8]
        file = out / "splits" / f"{share:.1%}-s{seed}-{told}.json".replace("%", "")
        write_json(file, {"train": part, **{side: ids for side, ids in others.items() if ids}})
        budget = _epochs(recipe, images=len(part), of=len(train))
        rows.append(
            {
                "name": f"{len(part)} images, seed {seed}",
                "data.split.kind": "given",
                "data.split.file": str(file.relative_to(out)),
                "training.seed": seed,
                **budget,
            }
        )
    return rows


def _epochs(recipe: Recipe, *, images: int, of: int) -> dict[str, int]:
    """So many epochs of a part as make the steps of all; a budget by the clock stays as it is."""
    if recipe.training.minutes is not None:
        return {}
    steps, all_steps = (max(1, round(count / recipe.training.batch_size)) for count in (images, of))
    return {"training.epochs": max(1, round((recipe.training.epochs or DEFAULT_EPOCHS) * all_steps / steps))}


def _grouped(runs: Sequence[Path], *, sizes: int) -> list[list[Path]]:
    """The runs that are done, by size."""
    return [[run for run in runs[place::sizes] if is_done(run)] for place in range(sizes)]


def _group_names(images: Prepared, groups: Sequence[str | None]) -> dict[str, str]:
    return {name: group or f"image {name}" for name, group in zip(images.pack.ids, groups, strict=True)}


def _curve(
    out: Path, runs: Sequence[Sequence[Path]], classes: ClassSet, groups: Mapping[str, str], *, more: int
) -> Curve:
    known = [some for some in runs if some]
    if len(known) < LEAST_SIZES or not runs[-1]:
        problem = f"of {len(runs)} sizes {len(known)} were trained"
        raise RunError(problem, mend="see errors/, mend what failed, and start it again", file=out)
    counts = [[_counts(run, classes, groups) for run in some] for some in known]
    sizes = np.array([np.mean([_images(run) for run in some]) for some in known])
    rng = np.random.default_rng(0)
    # The first weights are those of the images as they are.
    units = len(counts[0][0])
    weights = np.concatenate([np.ones((1, units)), rng.multinomial(units, np.full(units, 1 / units), RESAMPLES)])
    scores = [np.stack([_miou(weights, table, classes) for table in tables], axis=1) for tables in counts]
    drawn = np.stack([_over_seeds(each, rng) for each in scores], axis=1)
    law, blind = fit(sizes, drawn), fit(sizes[:-1], drawn[:, :-1])
    gain = at(law, sizes[-1] + more) - at(law, sizes[-1])
    points = [
        Point(float(n), float(each[0].mean()), float(each[0].std(ddof=1)) if each.shape[1] > 1 else None, each.shape[1])
        for n, each in zip(sizes, scores, strict=True)
    ]
    a, b, c = law[0].tolist()
    foretold = _interval(at(blind, sizes[-1]), units)
    beyond = np.linspace(sizes[-1], sizes[-1] + more, LINE_POINTS // 3)
    line = _line(law, np.concatenate([np.linspace(sizes[0], sizes[-1], LINE_POINTS), beyond[1:]]), units)
    return Curve(out, tuple(points), (a, b, c), more, _interval(gain, units), foretold, line)


def _line(
    law: Float[np.ndarray, "R 3"], sizes: Float[np.ndarray, " P"], units: int
) -> tuple[tuple[float, float, float, float], ...]:
    ends = [(float(images), _interval(at(law, images), units)) for images in sizes]
    return tuple((images, one.estimate, one.low, one.high) for images, one in ends)


def _over_seeds(scores: Float[np.ndarray, "R S"], rng: np.random.Generator) -> Float[np.ndarray, " R"]:
    """The mean over seeds that are drawn anew, but in the first row, which is what was seen."""
    picks = rng.integers(0, scores.shape[1], scores.shape)
    picks[0] = np.arange(scores.shape[1])
    return np.asarray(np.take_along_axis(scores, picks, axis=1).mean(axis=1))


def _counts(run: Path, classes: ClassSet, groups: Mapping[str, str]) -> Float[np.ndarray, "U M"]:
    """The counts of a run's validation images, summed over groups, in the order of their names."""
    arrays = read_arrays(run / "scores" / "val.npz")
    counts = class_counts(arrays["confusion"], classes).astype(np.float64)
    names = [groups[name] for name in arrays["ids"].tolist()]
    units = {name: number for number, name in enumerate(sorted(set(names)))}
    sums = np.zeros((len(units), *counts.shape[1:]))
    np.add.at(sums, [units[name] for name in names], counts)
    return sums.reshape(len(units), -1)


def _miou(weights: np.ndarray, table: np.ndarray, classes: ClassSet) -> Float[np.ndarray, " R"]:
    sums = (weights @ table).reshape(len(weights), 3, -1)
    return np.asarray(score_counts(sums, classes).miou)


def _images(run: Path) -> int:
    return len(read_json(run / "split.json")["train"])


def fit(sizes: Float[np.ndarray, " P"], scores: Float[np.ndarray, "R P"]) -> Float[np.ndarray, "R 3"]:
    """The law's a, b and c by least squares, one set a row of scores; a is at most 1, and b never below 0."""
    x = sizes[None] ** -EXPONENTS[:, None]
    middle = x.mean(axis=1, keepdims=True)
    spread = ((x - middle) ** 2).sum(axis=1)
    b = np.maximum(0.0, -(scores @ (x - middle).T) / spread)
    a = scores.mean(axis=1, keepdims=True) + b * middle.T
    over = a > 1
    b = np.where(over, np.maximum(0.0, ((1 - scores) @ x.T) / (x**2).sum(axis=1)), b)
    a = np.where(over, 1.0, a)
    wrong = ((a[..., None] - b[..., None] * x - scores[:, None]) ** 2).sum(axis=2)
    best = wrong.argmin(axis=1)
    rows = np.arange(len(scores))
    return np.stack([a[rows, best], b[rows, best], EXPONENTS[best]], axis=1)


def at(laws: Float[np.ndarray, "R 3"], images: float) -> Float[np.ndarray, " R"]:
    """What laws say of so many images."""
    return np.asarray(laws[:, 0] - laws[:, 1] * images ** -laws[:, 2])


def _interval(values: Float[np.ndarray, " R"], units: int) -> Interval:
    """The first value with the percentiles of the others."""
    known = values[1:][~np.isnan(values[1:])]
    low, high = np.quantile(known, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(values[0]), float(low), float(high), units=units)


def _told(curve: Curve) -> dict[str, Any]:
    return {
        "points": [vars(point) for point in curve.points],
        "law": dict(zip("abc", curve.law, strict=True)),
        "more": curve.more,
        "gain": curve.gain.as_dict(),
        "foretold": curve.foretold.as_dict(),
        "sentences": list(curve.sentences),
        "line": [dict(zip(("images", "miou", "low", "high"), one, strict=True)) for one in curve.line],
    }
