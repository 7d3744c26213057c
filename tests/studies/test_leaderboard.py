"""Tables from scores that were written by hand: rows, seeds, folds, differences and what is said of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from segwright.errors import RecipeError, RunError
from segwright.files import read_json, read_yaml, write_json, write_yaml
from segwright.metrics import score
from segwright.recipe import make_recipe
from segwright.runs import stages_folder
from segwright.studies.entries import plan_of
from segwright.studies.grid import read_study, trials
from segwright.studies.leaderboard import board
from segwright.types import ClassSet

IDS = [f"{i:03d}" for i in range(60)]
Maker = Callable[..., np.ndarray]
WriteRun = Callable[..., None]
Out = Callable[..., Path]


def test_rows_stand_in_order_with_means_over_seeds(write_study: Out) -> None:
    out = write_study({"ce": 0.70, "dice": 0.80, "jaccard": 0.75})
    table = board(plan_of(out))
    assert [row.name for row in table.rows] == ["dice", "jaccard", "ce"]
    assert (table.images, table.units, table.runs, table.baseline) == (60, 60, 9, "ce")
    runs = [out / "runs" / trial.name for trial in trials(read_study(out / "study.yaml")) if trial.row == "dice"]
    mious = []
    for run in runs:
        with np.load(run / "scores" / "val.npz") as scores:
            mious.append(
                float(
                    score(
                        scores["confusion"].sum(0),
                        ClassSet.from_dict(read_json(runs[0] / "scores" / "val.json")["classes"]),
                    ).miou
                )
            )
    best = table.rows[0]
    assert best.miou.estimate == pytest.approx(np.mean(mious))
    assert best.deviation == pytest.approx(np.std(mious, ddof=1))
    assert best.miou.low < best.miou.estimate < best.miou.high
    assert (best.seeds, best.figure) == (3, {"miou": 0.5})
    assert math.isnan(best.iou[0])
    assert np.mean(best.iou[1:]) == pytest.approx(best.miou.estimate)
    assert (best.cost.minutes, best.cost.parameters, best.cost.images_per_second) == (2.0, 108, 200.0)


def test_the_minutes_of_a_run_are_those_of_its_stages_too(write_study: Out) -> None:
    out = write_study({"ce": 0.70, "dice": 0.80, "jaccard": 0.75})
    for trial in trials(read_study(out / "study.yaml")):
        for name, seconds in (("1-base", 60.0), ("2-fusion", 30.0)):
            stage = stages_folder(out / "runs" / trial.name) / name
            stage.mkdir(parents=True)
            (stage / "metrics.jsonl").write_text(f'{{"seconds": 1.0}}\n{{"seconds": {seconds}}}\n', encoding="utf-8")
    assert board(plan_of(out)).rows[0].cost.minutes == 3.5


def test_a_real_difference_is_told_and_a_small_one_is_too_close(write_study: Out) -> None:
    table = board(plan_of(write_study({"ce": 0.70, "dice": 0.80, "jaccard": 0.701})))
    rows = {row.name: row for row in table.rows}
    assert rows["dice"].to_best is None
    assert rows["dice"].to_baseline.verdict == "better"
    assert rows["ce"].to_best.verdict == "worse"
    assert rows["ce"].to_baseline is None
    close = rows["jaccard"].to_baseline
    assert close.verdict == "too close to call"
    assert close.needed.units is None or close.needed.units > 60
    assert close.p_value >= close.gap.comparison.p_value


def test_one_seed_judges_no_recipe(write_study: Out) -> None:
    table = board(plan_of(write_study({"ce": 0.6, "dice": 0.8, "jaccard": 0.7}, seeds=[0])))
    assert {row.to_best.verdict for row in table.rows[1:]} == {"one seed"}
    assert math.isnan(table.rows[0].deviation)


def test_folds_of_a_seed_make_one_set(write_study: Out) -> None:
    out = write_study({"ce": 0.70, "dice": 0.80, "jaccard": 0.75}, folds=2, skip=("jaccard-s2-f1",))
    table = board(plan_of(out))
    assert table.images == 60
    rows = {row.name: row for row in table.rows}
    assert (rows["dice"].seeds, rows["jaccard"].seeds) == (3, 2)
    assert "seed 2 has 1 of 2 folds" in rows["jaccard"].note


def test_rows_that_failed_or_are_missing_stay_in_the_table(write_study: Out) -> None:
    out = write_study({"ce": 0.70, "dice": 0.80, "jaccard": 0.75}, skip=("jaccard", "ce-s1"))
    failed = next(trial for trial in trials(read_study(out / "study.yaml")) if trial.row == "jaccard")
    (out / "errors").mkdir()
    (out / "errors" / f"{failed.name}.txt").write_text("loss is NaN\nexit code 2\n")
    rows = {row.name: row for row in board(plan_of(out)).rows}
    assert list(rows)[-1] == "jaccard"
    assert rows["jaccard"].note == "1 failed: loss is NaN"
    assert rows["ce"].note == "1 not trained yet"


def test_runs_on_other_images_are_not_compared(write_study: Out, write_run: WriteRun, confusion: Maker) -> None:
    out = write_study({"ce": 0.70, "dice": 0.80, "jaccard": 0.75}, skip=("jaccard",))
    for trial in trials(read_study(out / "study.yaml")):
        if trial.row == "jaccard":
            write_run(out / "runs" / trial.name, confusion(0.9, seed=1), ids=[f"x{name}" for name in IDS])
    rows = {row.name: row for row in board(plan_of(out)).rows}
    assert rows["jaccard"].to_best is None
    assert "other images" in rows["jaccard"].note
    assert rows["ce"].to_best.to == "dice"


def test_runs_that_are_scored_by_other_rules_do_not_count(write_study: Out) -> None:
    out = write_study({"ce": 0.70, "dice": 0.80, "jaccard": 0.75})
    file = next((out / "runs").glob("jaccard-s1-*")) / "scores" / "val.json"
    summary = read_json(file)
    write_json(file, {**summary, "classes": {**summary["classes"], "ignore_in_score": []}})
    rows = {row.name: row for row in board(plan_of(out)).rows}
    assert rows["jaccard"].seeds == 2
    assert "leaves other classes out of its score" in rows["jaccard"].note
    rows = {row.name: row for row in board(plan_of(out, definition="all_classes")).rows}
    assert (rows["jaccard"].seeds, rows["jaccard"].note) == (3, "")


def test_rules_are_those_of_most_runs_and_equal_where_they_mean_the_same(write_study: Out) -> None:
    out = write_study({"ce": 0.70, "dice": 0.80, "jaccard": 0.75})
    file = next((out / "runs").glob("ce-s0-*")) / "scores" / "val.json"
    summary = read_json(file)
    other = {"ignore_in_score": [], "leave_out_of_mean": [0]}
    write_json(file, {**summary, "classes": {**summary["classes"], **other}})
    table = board(plan_of(out))
    assert {row.name: row.seeds for row in table.rows} == {"dice": 3, "jaccard": 3, "ce": 2}
    assert table.classes.ignore_in_score == (0,)
    for definition in ("ignore_in_score", "all_classes"):
        table = board(plan_of(out, definition=definition))
        assert {(row.seeds, row.note) for row in table.rows} == {(3, "")}
    assert {row.seeds for row in board(plan_of(out, definition="leave_out_of_mean")).rows} == {3}


def test_a_row_that_was_changed_leaves_its_old_runs_out(write_study: Out) -> None:
    out = write_study({"ce": 0.70, "dice": 0.80, "jaccard": 0.75})
    tree = read_yaml(out / "study.yaml")
    tree["list"][0]["optimizer.lr"] = 0.5
    write_yaml(out / "study.yaml", tree)
    rows = {row.name: row for row in board(plan_of(out)).rows}
    assert rows["ce"].seeds == 0
    assert rows["ce"].note == "3 not trained yet"


def test_any_folder_of_runs_makes_a_table(tmp_path: Path, write_run: WriteRun, confusion: Maker) -> None:
    for number, (lr, seed) in enumerate([(0.1, 0), (0.1, 1), (0.2, 0), (0.2, 1)]):
        run = tmp_path / f"run-{number}"
        tree = make_recipe({"optimizer": {"lr": lr}, "training": {"seed": seed}}).as_dict()
        write_run(run, confusion(0.6 + lr, seed=number), groups=[name[:2] for name in IDS])
        write_yaml(run / "recipe.yaml", tree)
    table = board(plan_of(tmp_path))
    assert [row.name for row in table.rows] == ["optimizer.lr=0.2", "optimizer.lr=0.1"]
    assert (table.rows[0].seeds, table.units) == (2, 6)
    assert [row.name for row in board(plan_of(tmp_path, by=["model.name"])).rows] == ["model.name=fpn"]
    with pytest.raises(RecipeError, match=r"unknown key 'model.nam'\. Did you mean 'model.name'"):
        plan_of(tmp_path, by=["model.nam"])


def test_nothing_to_show_is_said(tmp_path: Path, write_study: Out) -> None:
    with pytest.raises(RunError, match="holds no runs"):
        plan_of(tmp_path)
    out = write_study({"ce": 0.70, "dice": 0.80, "jaccard": 0.75}, skip=("ce", "dice", "jaccard"))
    with pytest.raises(RunError, match="no run has scores of 'val'"):
        board(plan_of(out))
    with pytest.raises(RecipeError, match="there is no row 'cee'"):
        plan_of(out, baseline="cee")
