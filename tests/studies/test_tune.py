"""The search, with a stand-in for `segwright train` whose score is known: best at lr 0.01, and better with dice."""

from __future__ import annotations

import json
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

optuna = pytest.importorskip("optuna", reason="needs the extra 'tune'")

from segwright.errors import RecipeError, RunError  # noqa: E402  # after the look for optuna
from segwright.files import read_yaml  # noqa: E402
from segwright.recipe import Recipe, make_recipe, read_recipe, write_recipe  # noqa: E402
from segwright.reporting.tune_page import write_tune_page  # noqa: E402
from segwright.studies import tune as room  # noqa: E402
from segwright.studies.proposals import Proposal, Proposals  # noqa: E402
from segwright.studies.space import Search, changed, one_changed, searched, usual_space, values_of  # noqa: E402
from segwright.studies.study_file import Range  # noqa: E402
from segwright.studies.tune import Effort, tune  # noqa: E402
from segwright.studies.tuned import Tried, front_of, read_found  # noqa: E402

TRAINER = """
import json, math, os, shutil, signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
words = sys.argv[1:]
if "--resume" in words:
    run = words[0]
else:
    run = os.path.join(words[words.index("--out") + 1], words[words.index("--name") + 1])
    os.makedirs(run)
    shutil.copy(words[0], os.path.join(run, "recipe.yaml"))
keys = dict(line.strip().split(": ", 1) for line in open(os.path.join(run, "recipe.yaml")) if ": " in line)
miou = 0.8 - 0.2 * abs(math.log10(float(keys["lr"])) + 2) + 0.05 * (keys["formula"] == "dice")
if keys["momentum"] == "0.5":
    print("segwright: the loss is not finite")
    sys.exit(2)
for epoch in range(1, 11):
    row = {"epoch": epoch, "seconds": epoch, "val_miou": miou * epoch / 10}
    with open(os.path.join(run, "metrics.jsonl"), "a") as rows:
        rows.write(json.dumps(row) + chr(10))
    time.sleep(PAUSE if miou < 0.5 else 0.0)
for folder in ("scores", "bundle"):
    os.makedirs(os.path.join(run, folder), exist_ok=True)
score = {"definitions": {"declared": {"miou": {"estimate": miou}}}, "images_per_second": 100 * float(keys["lr"])}
json.dump(score, open(os.path.join(run, "scores", "val.json"), "w"))
json.dump({}, open(os.path.join(run, "bundle", "bundle.json"), "w"))
"""

SPACE = {"optimizer.lr": Range(log=(1e-4, 1e-1)), "loss.formula": ["ce", "dice"]}


@pytest.fixture
def trainer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    program = tmp_path / "trainer.py"
    program.write_text(TRAINER.replace("PAUSE", "0.0"))
    monkeypatch.setattr(room, "PROGRAM", (sys.executable, "-I", "-S", str(program)))
    monkeypatch.setattr(room, "_WATCH_SECONDS", 0.05)
    return program


def base(**optimizer: float) -> Recipe:
    tree = {"data": {"path": "/photos"}, "loss": {"formula": "ce"}, "optimizer": {"lr": 1e-3, **optimizer}}
    return make_recipe(tree)


def short(trials: int, **more: object) -> Effort:
    return Effort(minutes=0.1, trials=trials, epochs=10, **more)  # type: ignore[arg-type]


def limited(monkeypatch: pytest.MonkeyPatch, trials: int) -> None:
    """End the search after so many trials, however quick they are."""
    left = iter(range(trials - 1))
    monkeypatch.setattr(room._Tuner, "_has_time", lambda self: next(left, None) is not None)


def test_the_search_beats_its_base_and_writes_a_recipe(
    tmp_path: Path, trainer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limited(monkeypatch, 10)
    lines: list[str] = []
    found = tune(Search(base(), SPACE), short(10), out=tmp_path / "out", say=lines.append)
    assert len(found.trials) == len(lines) == 10
    own = next(trial for trial in found.trials if trial.number == found.base)
    assert own.values == {"optimizer.lr": 1e-3, "loss.formula": "ce"}
    assert own.scores["miou"] == pytest.approx(0.6)
    assert found.best is not None
    assert found.best.scores["miou"] > 0.65
    best = read_recipe(tmp_path / "out" / "best.yaml")
    assert best.optimizer.lr == pytest.approx(found.best.values["optimizer.lr"])
    assert best.loss.formula == found.best.values["loss.formula"]
    assert best.data.audit
    assert sum(found.importances.values()) == pytest.approx(1.0)
    assert found.importances["optimizer.lr"] > found.importances["loss.formula"]
    assert read_found(tmp_path / "out") == found
    page = write_tune_page(tmp_path / "out").read_text()
    assert "What mattered" in page
    assert f"{found.best.scores['miou']:.3f}" in page


def test_a_trial_that_lags_behind_the_median_is_stopped(
    tmp_path: Path, trainer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer.write_text(TRAINER.replace("PAUSE", "0.3"))
    limited(monkeypatch, 1)
    search, out = Search(base(lr=1e-4), SPACE), tmp_path / "out"
    proposals, first = begun(search, out)
    write_recipe(out / "runs" / "good" / "recipe.yaml", base())
    for score in (0.70, 0.71, 0.72, 0.73, 0.74):
        other, _ = proposals.ask()
        other.named("good")
        assert not any(other.lags(score, rung=rung) for rung in range(1, 11))
        proposals.reached(other, [score])
    proposals.left_open(first)
    found = tune(search, short(1), out=out)
    slow = found.trials[-1]
    assert (slow.state, slow.run, slow.scores) == ("pruned", "trial-0000-half", {})
    assert len((out / "runs" / slow.run / "metrics.jsonl").read_text().splitlines()) < 10
    assert found.best is not None
    assert found.best.scores["miou"] == 0.74


def begun(search: Search, out: Path) -> tuple[Proposals, Proposal]:
    """A search whose first trial has half a run."""
    (out / "runs" / "trial-0000-half").mkdir(parents=True)
    proposals = Proposals(search, folder=out, budget=short(1).budget, pruner="median", seed=0)
    proposal, _ = proposals.ask()
    proposal.named("trial-0000-half")
    recipe = changed(search.base, proposal.values)
    write_recipe(out / "runs" / "trial-0000-half" / "recipe.yaml", recipe)
    return proposals, proposal


def test_a_search_that_was_killed_goes_on_with_its_half_trained_run(
    tmp_path: Path, trainer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limited(monkeypatch, 1)
    search = Search(base(lr=1e-4), SPACE)
    proposals, proposal = begun(search, tmp_path / "out")
    proposals.left_open(proposal)  # as the system does when the process is gone
    found = tune(search, short(1), out=tmp_path / "out")
    assert [(trial.state, trial.run) for trial in found.trials] == [("done", "trial-0000-half")]
    assert found.base == found.trials[0].number


def test_what_another_process_works_on_is_left_to_it(
    tmp_path: Path, trainer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limited(monkeypatch, 1)
    search = Search(base(lr=1e-4), SPACE)
    proposals, proposal = begun(search, tmp_path / "out")
    found = tune(search, short(1), out=tmp_path / "out")
    assert [trial.state for trial in found.trials] == ["running", "done"]
    proposals.left_open(proposal)


def test_with_two_objectives_the_front_is_kept(tmp_path: Path, trainer: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limited(monkeypatch, 5)
    search = Search(base(), SPACE, ("miou", "images_per_second"))
    found = tune(search, short(5), out=tmp_path / "out")
    by_number = {trial.number: trial.scores for trial in found.trials}
    speeds = [by_number[number]["images_per_second"] for number in found.front]
    assert speeds == sorted(speeds)
    recipes = sorted((tmp_path / "out").glob("front-*.yaml"))
    assert len(recipes) == len(found.front) - 1
    assert all(trial.state == "done" for trial in found.trials)


def test_what_was_trained_is_not_trained_again(tmp_path: Path, trainer: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "_MOST_IN_VAIN", 4)
    space = {"loss.formula": ["ce", "dice"]}
    found = tune(Search(base(), space), Effort(minutes=60, trials=100, epochs=10), out=tmp_path / "out")
    assert len(list((tmp_path / "out" / "runs").iterdir())) <= 2
    assert {trial.state for trial in found.trials} == {"done"}


def test_a_failing_trial_stops_nothing_and_a_search_of_failures_says_why(
    tmp_path: Path, trainer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limited(monkeypatch, 2)
    with pytest.raises(RunError, match="the loss is not finite"):
        tune(Search(base(momentum=0.5), SPACE), short(2), out=tmp_path / "out")


def test_another_search_does_not_fit_in_the_folder(
    tmp_path: Path, trainer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limited(monkeypatch, 1)
    tune(Search(base(), SPACE), short(1), out=tmp_path / "out")
    with pytest.raises(RunError, match="another base"):
        tune(Search(base(lr=5e-3), SPACE), short(1), out=tmp_path / "out")


@pytest.mark.parametrize(("key", "menu"), [("optimizer.rate", [1.0]), ("optimizer.lr", Range(uniform=(-1.0, 1.0)))])
def test_a_space_is_checked_before_a_minute_is_spent(tmp_path: Path, key: str, menu: object) -> None:
    with pytest.raises(RecipeError, match=key):
        tune(Search(base(), {key: menu}), short(1), out=tmp_path / "out")  # type: ignore[dict-item]
    assert not (tmp_path / "out").exists()


def test_a_refit_is_no_base_for_a_search(tmp_path: Path) -> None:
    refit = make_recipe({"data": {"split": {"refit": "runs/first"}}, "training": {"keep": "last"}})
    with pytest.raises(RecipeError, match=r"'data.split.refit' = .*runs/first.*: a refit has no score to search by"):
        tune(Search(refit, SPACE), short(1), out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_usual_space_holds_the_base() -> None:
    recipe = make_recipe({"loss": {"formula": "3*dice"}, "training": {"batch_size": 5, "ema": 0.0}})
    space = usual_space(recipe)
    values = values_of(recipe, space)
    assert values is not None
    assert changed(recipe, values) == recipe
    assert values_of(recipe, {"optimizer.lr": Range(uniform=(0.5, 1.0))}) is None


def test_a_study_file_names_the_space_and_models_are_chosen_with_their_encoder(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    tree = {
        "name": "night",
        "base": {"data": {"path": "photos"}, "model": {"name": "unet", "encoder": None, "arguments": {"width": 8}}},
        "random": {"keys": {"optimizer.lr": {"log": [1e-4, 1e-2]}, "loss.formula": ["ce", "jaccard + ce"]}},
    }
    (tmp_path / "study.yaml").write_text(json.dumps(tree))
    name, search = searched(tmp_path / "study.yaml", models=("unet", "fpn:resnet18"))
    assert name == "night"
    assert search.base.data.path == str(tmp_path / "photos")
    assert set(search.space) == {"optimizer.lr", "loss.formula", "model"}
    assert search.space["loss.formula"] == ["dice + ce", "ce", "jaccard + ce"], "the base's own joins a menu"
    assert values_of(search.base, search.space) is not None
    other = changed(search.base, {"model": "fpn:resnet18"}).model
    assert (other.name, other.encoder, other.arguments) == ("fpn", "resnet18", {})
    assert changed(search.base, {"model": "unet"}) == search.base
    with pytest.raises(RecipeError, match="Did you mean 'fpn'"):
        searched(tmp_path / "study.yaml", models=("fpnn",))
    with pytest.raises(RecipeError, match=r"model 'unet' takes no encoder.*smp_unet:resnet34"):
        searched(tmp_path / "study.yaml", models=("unet:resnet34",))


def test_a_share_of_the_minutes_leaves_time_to_start_and_to_score() -> None:
    assert Effort(minutes=120, trials=20, jobs=2).budget == {"epochs": None, "minutes": 11.75}
    assert Effort(minutes=1, trials=6).budget == {"epochs": None, "minutes": 0.1}


def test_the_front_holds_what_no_other_beats() -> None:
    points = [(0.5, 9.0), (0.7, 5.0), (0.6, 4.0), (0.7, 5.0), (0.8, 1.0)]
    trials = [Tried(i, "done", {"miou": a, "images_per_second": b}, {}, 1.0, "") for i, (a, b) in enumerate(points)]
    assert front_of(trials, ("miou", "images_per_second")) == (4, 1, 0)
    assert front_of(trials, ("miou",)) == (4,)
    assert front_of([], ("miou",)) == ()


def test_what_is_kept_is_what_the_run_was_trained_with(
    tmp_path: Path, trainer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limited(monkeypatch, 1)
    found = tune(Search(base(), SPACE), short(1), out=tmp_path / "out")
    assert found.best is not None
    trained = read_yaml(tmp_path / "out" / "runs" / found.best.run / "recipe.yaml")
    kept = read_yaml(tmp_path / "out" / "best.yaml")
    # A trial has a share of the time, and the winner that of the base.
    shares = [tree.pop("training") for tree in (kept, trained)]
    own = base().training
    assert (shares[0].pop("epochs"), shares[0].pop("minutes")) == (own.epochs, own.minutes)
    assert (shares[1].pop("epochs"), shares[1].pop("minutes")) != (own.epochs, own.minutes)
    assert shares[0] == shares[1]
    assert kept.pop("data") == {**trained.pop("data"), "audit": True}
    assert kept == trained


def test_the_first_trials_change_one_key_each_and_try_every_model() -> None:
    space = {
        "optimizer.lr": Range(log=(1e-4, 1e-2)),
        "training.ema": Range(uniform=(0.0, 1.0)),
        "training.batch_size": Range(int=(1, 9)),
        "loss.formula": ["ce", "dice", "focal"],
        "augment.preset": ["light"],
        "model": ["unet", "fpn:resnet18", "swiftnet:resnet18"],
    }
    own = {"optimizer.lr": 1e-2, "training.ema": 0.5, "training.batch_size": 5, "loss.formula": "ce"}
    own |= {"augment.preset": "light", "model": "unet"}
    points = one_changed(own, space, seed=0)
    keys = [[key for key in own if point[key] != own[key]] for point in points]
    assert keys == [["model"]] * 2 + [[key] for key in list(space)[:4]]
    assert [point["model"] for point in points[:2]] == ["fpn:resnet18", "swiftnet:resnet18"]
    assert points[2]["optimizer.lr"] == pytest.approx(1e-2 / 10**0.5)  # the other way leaves the range
    assert points[3]["training.ema"] in (0.25, 0.75)
    assert points[4]["training.batch_size"] in (3, 7)
    assert points == one_changed(own, space, seed=0)
    assert one_changed(own, {"augment.preset": ["light"]}, seed=0) == []


def test_a_search_begins_with_the_base_and_single_changes_of_it(
    tmp_path: Path, trainer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limited(monkeypatch, 3)
    found = tune(Search(base(), SPACE), short(3), out=tmp_path / "out")
    first, *others = [trial.values for trial in found.trials]
    assert first == {"optimizer.lr": 1e-3, "loss.formula": "ce"}
    assert [sum(values[key] != first[key] for key in first) for values in others] == [1, 1]


def test_menus_and_narrow_ranges_give_single_changes_too() -> None:
    recipe = base(weight_decay=0.0)
    space = {"optimizer.weight_decay": [0, 0.01], "optimizer.lr": Range(log=(5e-4, 2e-3))}
    own = values_of(recipe, space)
    assert own is not None
    assert json.dumps(own["optimizer.weight_decay"]) == "0"  # as the menu writes it, not 0.0
    changes = one_changed(own, space, seed=0)
    assert changes[0]["optimizer.weight_decay"] == 0.01
    assert changes[1]["optimizer.lr"] == pytest.approx(1e-3 * 4**0.333, rel=0.01) or changes[1][
        "optimizer.lr"
    ] == pytest.approx(1e-3 / 4**0.333, rel=0.01)


def test_models_to_choose_from_hold_that_of_the_base(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(json.dumps({"data": {"path": "."}, "model": {"name": "fpn"}}))
    _, search = searched(tmp_path / "recipe.yaml", models=("unet",))
    assert search.space["model"] == ["fpn:resnet18", "unet"]
    assert values_of(search.base, search.space) is not None


def test_machines_that_ask_at_once_are_given_different_points(tmp_path: Path) -> None:
    count = 6
    barrier = threading.Barrier(count)

    def ask(seed: int) -> tuple[tuple[str, object], ...]:
        proposals = Proposals(Search(base(), SPACE), folder=tmp_path, budget={}, pruner="none", seed=seed)
        barrier.wait()
        proposal, _ = proposals.ask()
        return tuple(proposal.values.items())

    with ThreadPoolExecutor(count) as pool:
        asked = list(pool.map(ask, range(count)))
    assert len(set(asked)) == count
    first = dict.fromkeys(SPACE)
    own = {"optimizer.lr": 1e-3, "loss.formula": "ce"}
    changed_keys = sorted(sum(dict(values)[key] != own[key] for key in first) for values in asked)
    assert changed_keys[:3] == [0, 1, 1]
