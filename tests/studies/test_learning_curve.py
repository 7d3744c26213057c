"""Parts of the training images, the law that is fitted, and its interval."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import curve_fit

from segwright.data.synthetic import write_terrain
from segwright.errors import OutputError, RunError, SplitError
from segwright.files import read_json, write_arrays, write_json
from segwright.recipe import make_recipe
from segwright.reporting.curve_page import write_curve_page
from segwright.studies import learning_curve as curves
from segwright.studies.grid import trials
from segwright.studies.machines import Machines
from segwright.studies.state import place_of
from segwright.types import ClassSet

TWO = ClassSet(("a", "b"), ((0, 0, 0), (255, 255, 255)))
SIZES = np.array([50.0, 100.0, 200.0, 300.0, 400.0])


@given(count=st.integers(24, 80), size=st.integers(1, 3), seed=st.integers(0, 5))
def test_parts_are_nested_and_groups_whole(count, size, seed):
    ids = [f"{number:03d}" for number in range(count)]
    groups = [str(number // size) for number in range(count)]
    parts = curves.parts_of(ids, groups, seed=seed)
    assert parts[-1] == ids
    for small, large in itertools.pairwise(parts):
        assert set(small) < set(large)
    for part, share in zip(parts, curves.SHARES, strict=True):
        assert abs(len(part) - share * count) <= size / 2
        inside, outside = ({groups[int(name)] for name in names} for names in (part, set(ids) - set(part)))
        assert not inside & outside
    assert parts == curves.parts_of(ids, groups, seed=seed)


def test_orders_differ_by_seed_and_few_images_are_refused():
    ids = [f"{number:03d}" for number in range(40)]
    assert curves.parts_of(ids, [None] * 40, seed=0)[0] != curves.parts_of(ids, [None] * 40, seed=1)[0]
    with pytest.raises(SplitError, match="4 training images in 4 groups"):
        curves.parts_of(ids[:4], [None] * 4, seed=0)
    with pytest.raises(SplitError, match="in 2 groups"):
        curves.parts_of(ids, ["a"] * 20 + ["b"] * 20, seed=0)


@pytest.mark.parametrize("law", [(0.8, 1.5, 0.5), (0.6, 4.0, 1.0), (1.0, 0.9, 0.2)])
def test_the_law_is_found_again(law):
    a, b, c = law
    found = curves.fit(SIZES, (a - b * SIZES**-c)[None])
    assert curves.at(found, 600)[0] == pytest.approx(a - b * 600**-c, abs=1e-3)


def test_the_fit_is_as_good_as_scipy_s(rng):
    def law(n, a, b, c):
        return a - b * n**-c

    for _ in range(10):
        scores = 0.8 - 1.5 * SIZES**-0.5 + rng.normal(0, 0.005, 5)
        bounds = ([-np.inf, 0, 0.05], [1, np.inf, 2])
        theirs, _ = curve_fit(law, SIZES, scores, p0=(0.8, 1.5, 0.5), bounds=bounds, maxfev=20_000)
        own = curves.fit(SIZES, scores[None])[0]
        wrong = [float(np.square(law(SIZES, *some) - scores).sum()) for some in (own, theirs)]
        assert wrong[0] <= wrong[1] * 1.02 + 1e-7


def test_a_law_never_falls_nor_passes_one():
    falling = curves.fit(SIZES, np.array([[0.6, 0.55, 0.5, 0.45, 0.4], [0.5, 0.7, 0.9, 0.98, 1.0]]))
    assert falling[0, 1] == 0
    assert curves.at(falling, 10_000)[0] == pytest.approx(0.5)
    assert (curves.at(falling, 1e9) <= 1).all()


def recorded(folder, rng, *, seeds=3, images=60, law=(0.9, 2.0, 0.5)):
    """Run folders whose validation images are right as often as the law says."""
    runs = []
    for seed in range(seeds):
        for size in SIZES.astype(int):
            run = folder / f"{size}-{seed}"
            share = (law[0] - law[1] * size ** -law[2]) + rng.normal(0, 0.004)
            right = rng.binomial(400, np.clip(2 * share / (1 + share) + rng.normal(0, 0.03, images), 0, 1))
            confusion = np.zeros((images, 2, 2), dtype=np.int64)
            confusion[:, 0, 0] = confusion[:, 1, 1] = right
            confusion[:, 0, 1] = confusion[:, 1, 0] = 400 - right
            ids = np.array([f"{number:02d}" for number in range(images)])
            write_arrays(run / "scores" / "val.npz", {"ids": ids, "confusion": confusion})
            write_json(run / "scores" / "val.json", {})
            write_json(run / "bundle" / "bundle.json", {})
            write_json(run / "split.json", {"train": ["x"] * int(size)})
            runs.append(run)
    return runs


def test_the_gain_and_its_interval_and_the_check(tmp_path, rng):
    runs = recorded(tmp_path, rng)
    groups = {f"{number:02d}": f"group {number // 2}" for number in range(60)}
    by_size = curves._grouped(runs, sizes=5)
    curve = curves._curve(tmp_path, by_size, TWO, groups, more=200)
    truth = 2.0 * (400**-0.5 - 600**-0.5)
    assert curve.gain.low <= truth <= curve.gain.high
    assert curve.gain.low <= curve.gain.estimate <= curve.gain.high
    assert curve.gain.units == 30
    assert curve.foretold.low <= curve.points[-1].mean <= curve.foretold.high
    assert [point.images for point in curve.points] == SIZES.tolist()
    assert {point.runs for point in curve.points} == {3}
    gain, held = curve.sentences[1:]
    assert gain.startswith("With 200 more images expect +")
    assert held.endswith("within the interval")


def test_too_few_runs_make_no_curve(tmp_path, rng):
    runs = recorded(tmp_path, rng, seeds=1)
    for run in (runs[0], runs[1]):
        (run / "scores" / "val.json").unlink()
    with pytest.raises(RunError, match="of 5 sizes 3 were trained"):
        curves._curve(tmp_path, curves._grouped(runs, sizes=5), TWO, {}, more=200)


def test_parts_are_trained_for_as_many_steps():
    recipe = make_recipe({"training": {"epochs": 10, "batch_size": 4}})
    assert curves._epochs(recipe, images=50, of=400) == {"training.epochs": 83}  # 1000 steps in epochs of 12
    assert curves._epochs(recipe, images=400, of=400) == {"training.epochs": 10}
    assert curves._epochs(make_recipe({"training": {"minutes": 5}}), images=50, of=400) == {}


def test_a_curve_from_images_to_sentences(tmp_path, rng, monkeypatch):
    """All but the trainings, which leave scores of the law."""
    write_terrain(tmp_path / "photos", images=40, size=(32, 32))
    recipe = make_recipe({"data": {"path": str(tmp_path / "photos")}, "training": {"epochs": 3, "batch_size": 4}})
    seen = []

    def pretend(study, out, **more):
        for trial in trials(study):
            split = read_json(Path(trial.recipe["data"]["split"]["file"]))
            seen.append((trial.seed, len(split["train"]), tuple(split["val"]), trial.recipe["training"]["epochs"]))
            run = place_of(out, trial.name).run
            confusion = np.full((len(split["val"]), 5, 5), 5 + 100 // len(split["train"]))
            confusion[:, range(5), range(5)] = rng.integers(360, 400, (len(split["val"]), 5))
            write_arrays(run / "scores" / "val.npz", {"ids": np.array(split["val"]), "confusion": confusion})
            for name in ("scores/val.json", "bundle/bundle.json"):
                write_json(run / name, {})
            write_json(run / "split.json", split)

    monkeypatch.setattr(curves, "run_study", pretend)
    out = tmp_path / "out"
    more = {"name": "curve", "seeds": (0, 1), "more": 50, "machines": Machines(jobs=1), "progress": False}
    curve = curves.learning_curve(recipe, out, **more)
    assert {seed for seed, *_ in seen} == {0, 1}
    assert len({val for _, _, val, _ in seen}) == 1
    steps = {epochs * max(1, round(count / 4)) for _, count, _, epochs in seen}
    assert max(steps) - min(steps) <= max(count for _, count, _, _ in seen) / 4
    assert [point.runs for point in curve.points] == [2] * 5
    assert curve.points[-1].mean > curve.points[0].mean
    assert curve.gain.low <= curve.gain.estimate
    assert read_json(out / "learning-curve.json")["sentences"] == list(curve.sentences)
    assert [one["images"] for one in read_json(out / "learning-curve.json")["line"]][:: len(curve.line) - 1] == [
        pytest.approx(curve.points[0].images),
        pytest.approx(curve.points[-1].images + 50),
    ]
    assert all(low <= value <= high for _, value, low, high in curve.line)
    page = write_curve_page(curve).read_text()
    assert "training images" in page
    for sentence in curve.sentences:
        assert f"<li>{sentence}.</li>" in page
    (out / "learning-curve.html").write_text("mine")
    with pytest.raises(OutputError, match="no segwright report"):
        write_curve_page(curve)
