"""Runs side by side: the statistics of their scores, and the images that are chosen to be shown."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from segwright.errors import RunError
from segwright.files import read_json, write_json, write_yaml
from segwright.studies.compare import choose, compare

Maker = Callable[..., np.ndarray]


@pytest.fixture
def trained(tmp_path: Path, write_run: Callable[..., None], confusion: Maker) -> Callable[..., Path]:
    def write(name: str, right: float, **more: object) -> Path:
        write_run(tmp_path / name, confusion(right, seed=len(name)), **more)
        write_yaml(tmp_path / name / "recipe.yaml", {})
        return tmp_path / name

    return write


def test_the_better_run_is_told_and_equal_ones_are_not(trained: Callable[..., Path]) -> None:
    found = compare([trained("a", 0.7), trained("bb", 0.8), trained("ccc", 0.7)], resamples=500)
    first, better, same = found.runs
    assert first.to_first is None
    assert (better.verdict, same.verdict) == ("better", "too close to call")
    assert better.to_first is not None
    assert better.to_first.difference.estimate == pytest.approx(better.miou.estimate - first.miou.estimate)
    assert better.p_value == pytest.approx(2 * better.to_first.p_value)
    assert [one.verdict() for one in better.classes_to_first] == ["A"] * 3 or len(better.classes_to_first) == 3
    assert better.classes_to_first[2].difference.estimate == pytest.approx(better.iou[2] - first.iou[2])
    assert found.image_scores.shape == (3, 60)


def test_order_of_the_images_does_not_matter(
    trained: Callable[..., Path], tmp_path: Path, write_run: Callable[..., None], confusion: Maker
) -> None:
    one = trained("a", 0.7)
    order = np.random.default_rng(0).permutation(60)
    write_run(tmp_path / "z", confusion(0.7, seed=1)[order], ids=[f"images/{i:03d}" for i in order])
    write_yaml(tmp_path / "z" / "recipe.yaml", {})
    found = compare([one, tmp_path / "z"], resamples=200)
    assert found.runs[1].to_first is not None
    assert found.runs[1].to_first.difference.estimate == 0
    np.testing.assert_array_equal(found.image_scores[0], found.image_scores[1])


def test_other_images_cannot_be_compared(trained: Callable[..., Path]) -> None:
    other = trained("b", 0.7, ids=[f"{i + 1:03d}" for i in range(60)])
    with pytest.raises(RunError, match="59 are the same"):
        compare([trained("a", 0.7), other])
    with pytest.raises(RunError, match="one run cannot be compared"):
        compare([other])


def test_other_masks_of_the_same_images_cannot_be_compared(
    trained: Callable[..., Path], tmp_path: Path, write_run: Callable[..., None], confusion: Maker
) -> None:
    one, counts = trained("a", 0.7), confusion(0.7, seed=1)
    counts[7, 1, 1] += 1
    write_run(tmp_path / "b", counts)
    write_yaml(tmp_path / "b" / "recipe.yaml", {})
    with pytest.raises(RunError, match=r"b: was scored on other masks of these images than .*a"):
        compare([one, tmp_path / "b"])


def test_runs_of_other_rules_cannot_be_compared_by_them(trained: Callable[..., Path]) -> None:
    runs = [trained("a", 0.7), trained("b", 0.7)]
    file = runs[1] / "scores" / "val.json"
    summary = read_json(file)
    summary["classes"]["ignore_in_score"] = []
    write_json(file, summary)
    with pytest.raises(RunError, match=r"b: leaves other classes out of its score than .*all_classes"):
        compare(runs)
    compare(runs, definition="all_classes", resamples=50)


def test_groups_count_whichever_run_knows_them(trained: Callable[..., Path]) -> None:
    groups = [f"flight {i // 10}" for i in range(60)]
    runs = [trained("a", 0.7), trained("bb", 0.72, groups=groups)]
    for order in (runs, runs[::-1]):
        assert compare(order, resamples=50).units == 6


def test_chosen_images_are_the_most_unlike_the_best_and_the_worst() -> None:
    scores = np.array([[0.9, 0.1, 0.5, 0.2, np.nan], [0.9, 0.1, 0.1, 0.3, 0.4]])
    chosen = choose(["best", "worst", "apart", "middle", "unknown"], scores, count=1)
    assert chosen == {"apart": "differ", "best": "best", "worst": "worst"}
    assert len(choose(["a", "b"], scores[:, :2], count=5)) == 2
