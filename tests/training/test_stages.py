"""Training in stages: each begins where the one before it ended, moves its own parts alone, and can be resumed."""

from __future__ import annotations

import os
import shutil
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from segwright import verbs
from segwright.bundle import load_bundle
from segwright.errors import MissingExtraError, RecipeError, RunError, RunStopped
from segwright.files import read_json
from segwright.recipe import Recipe, read_recipe, stages_of, write_recipe
from segwright.runs import started_from
from segwright.training import stages
from segwright.training.module import SegmentationModule
from segwright.training.preparation import Prepared
from segwright.training.stages import resume_in_stages, train_in_stages

Folder = Callable[..., Path]
Tiny = Callable[..., Recipe]

BRANCH = {"name": "unet", "arguments": {"width": 4, "depth": 2}}
DUAL = {"name": "dual", "arguments": {"first": BRANCH, "second": BRANCH, "fusion_width": 4}}
STAGES = (
    {"name": "first", "training": {"epochs": 1, "trainable": ["branches.first"]}, "loss": {"heads": ["first"]}},
    {
        "name": "fusion",
        "training": {"epochs": 1, "trainable": ["fusion"], "keep": "last"},
        "loss": {"heads": ["main"], "formula": "ce"},
        "augment": {"preset": "none"},
    },
)


def staged(tiny: Tiny, data: Path) -> Recipe:
    return tiny(data, epochs=1, model=DUAL, training={"ema": 0}).model_copy(update={"stages": STAGES})


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_bundle(folder).model.state_dict()


def test_a_stage_moves_its_own_part_and_starts_where_the_last_one_ended(
    photos: Folder, tiny: Tiny, tmp_path: Path
) -> None:
    run = train_in_stages(staged(tiny, photos()), run=tmp_path / "run", progress=False)
    first, fusion, whole = (weights(folder) for folder in (tmp_path / "run.stages" / "1-first",
                            tmp_path / "run.stages" / "2-fusion", run))  # fmt: skip
    for name, value in first.items():
        assert torch.equal(value, fusion[name]) == (not name.startswith("net.fusion")), name
    assert any(not torch.equal(whole[name], value) for name, value in fusion.items() if ".branches.second" in name)
    assert read_recipe(run / "recipe.yaml").stages == STAGES
    assert read_recipe(tmp_path / "run.stages" / "2-fusion" / "recipe.yaml").loss.formula == "ce"
    assert read_json(run / "environment.json")["start_from"] == str((tmp_path / "run.stages" / "2-fusion").resolve())


def test_a_run_that_was_stopped_goes_on_in_its_stage(
    photos: Folder, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[str] = []
    real = stages.train

    def once(recipe: Recipe, *, run: Path, **given: object) -> Path:
        if run.name == "2-fusion" and "2-fusion" not in trained:
            trained.append("2-fusion")
            raise KeyboardInterrupt
        trained.append(run.name)
        return real(recipe, run=run, **given)  # type: ignore[arg-type]

    monkeypatch.setattr(stages, "train", once)
    with pytest.raises(KeyboardInterrupt):
        train_in_stages(staged(tiny, photos()), run=tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()
    with pytest.raises(RunError, match="still in its stages"):
        resume_in_stages(tmp_path / "run", changes=["training.epochs=3"], progress=False)
    run = verbs.resume(tmp_path / "run", progress=False)
    assert trained == ["1-first", "2-fusion", "2-fusion", "run"]
    assert (run / "report.html").is_file()
    with pytest.raises(RunError, match="exists already"):
        train_in_stages(staged(tiny, photos(name="more")), run=tmp_path / "run", progress=False)


@pytest.mark.skipif(threading.current_thread() is not threading.main_thread(), reason="only there signals are caught")
def test_a_signal_within_a_stage_names_the_run_and_resuming_that_goes_on_in_the_stage(
    photos: Folder, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = SegmentationModule.training_step
    place = tmp_path / "my run.stages" / "2-fusion"

    def interrupted(self: SegmentationModule, *arguments: object) -> object:
        if place.exists():
            os.kill(os.getpid(), signal.SIGINT)
        return original(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(SegmentationModule, "training_step", interrupted)
        with pytest.raises(RunStopped, match="stopped by SIGINT") as stop:
            train_in_stages(staged(tiny, photos()), run=tmp_path / "my run", progress=False)
    assert str(stop.value).endswith(f"go on with: segwright train '{tmp_path / 'my run'}' --resume")
    before = (tmp_path / "my run.stages" / "1-first" / "log.txt").read_text()
    assert resume_in_stages(tmp_path / "my run", progress=False) == tmp_path / "my run"
    assert (tmp_path / "my run.stages" / "1-first" / "log.txt").read_text() == before
    assert "resumed  after step 1," in (place / "log.txt").read_text()
    assert read_json(tmp_path / "my run.stages" / "staged.json")["done"] == ["first", "fusion"]


def test_a_run_that_was_killed_in_the_checks_before_its_first_stage_goes_on(
    photos: Folder, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object, **__: object) -> None:
        shutil.copytree(tmp_path / "run.stages", tmp_path / "killed.stages")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(stages, "_check_parts", killed)
        with pytest.raises(KeyboardInterrupt):
            train_in_stages(staged(tiny, photos()), run=tmp_path / "run", progress=False)
    assert not (tmp_path / "run.stages").exists()
    assert (resume_in_stages(tmp_path / "killed", progress=False) / "bundle").is_dir()


def test_a_stage_that_was_killed_before_its_first_save_starts_from_the_one_beside_it_wherever_that_was_brought(
    photos: Folder, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = SegmentationModule.training_step

    def killed(self: SegmentationModule, *arguments: object) -> object:
        if (tmp_path / "there" / "run.stages" / "2-fusion").exists():
            raise ZeroDivisionError
        return original(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(SegmentationModule, "training_step", killed)
        with pytest.raises(ZeroDivisionError):
            train_in_stages(staged(tiny, photos()), run=tmp_path / "there" / "run", progress=False)
    (tmp_path / "there").rename(tmp_path / "here")
    run = resume_in_stages(tmp_path / "here" / "run", progress=False)
    first, fusion = (weights(tmp_path / "here" / "run.stages" / name) for name in ("1-first", "2-fusion"))
    assert all(torch.equal(first[name], fusion[name]) for name in first if not name.startswith("net.fusion"))
    assert started_from(run) == tmp_path / "here" / "run.stages" / "2-fusion"


@pytest.mark.parametrize(
    ("branch", "changes", "message"),
    [
        ("training", {"trainable": ["branches.secnd"]}, r"stage 'fusion': model 'dual' has no part 'branches.secnd'"),
        ("loss", {"heads": ["mian"]}, r"stage 'fusion': the model has no head 'mian'. Did you mean 'main'"),
        ("loss", {"formula": "dcie"}, r"stage 'fusion': .*dcie"),
        ("sampling", {"rare_classes": ["rock"], "crop_on_rare": 0.5}, r"stage 'fusion': there is no class 'rock'"),
        ("training", {"precision": "fp16"}, r"stage 'fusion': fp16 is not for CPUs"),
        ("training", {"devices": 99}, r"stage 'fusion': training.devices = 99, but there are 2 processor cores"),
        ("training", {"devices": 2, "batch_size": 1}, r"stage 'fusion': batches of 1 images are too few for 2"),
    ],
)
def test_what_is_wrong_with_a_later_stage_is_said_before_the_first(
    branch: str,
    changes: dict[str, object],
    message: str,
    photos: Folder,
    tiny: Tiny,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stages, "choose_device", lambda: torch.device("cpu"))
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    first, fusion = STAGES
    wrong = {**fusion, branch: {**fusion.get(branch, {}), **changes}}  # type: ignore[dict-item]
    recipe = tiny(photos(), epochs=1, model=DUAL).model_copy(update={"stages": (first, wrong)})
    with pytest.raises(RecipeError, match=message):
        train_in_stages(recipe, run=tmp_path / "run", progress=False)
    assert not list(tmp_path.glob("run*"))
    last = recipe.model_copy(update={"stages": (first,), "loss": recipe.loss.model_copy(update={"heads": ("mian",)})})
    with pytest.raises(RecipeError, match=r"^the model has no head 'mian'"):
        train_in_stages(last, run=tmp_path / "run", progress=False)
    assert not list(tmp_path.glob("run*"))


def test_stages_take_as_many_processes_as_the_recipe(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = {"RANK": 0, "WORLD_SIZE": 2, "LOCAL_RANK": 0, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": 29500}
    for name, value in where.items():
        monkeypatch.setenv(name, str(value))
    one = {"name": "one", "training": {"epochs": 1, "devices": 1}}
    recipe = tiny(tmp_path / "none", epochs=1).model_copy(update={"stages": (one,)})
    told = r"the stages have training.devices 1, the recipe auto"
    with pytest.raises(RecipeError, match=told):
        train_in_stages(recipe, run=tmp_path / "run", progress=False)
    write_recipe(tmp_path / "run.stages" / "staged.yaml", recipe)
    with pytest.raises(RecipeError, match=told):
        resume_in_stages(tmp_path / "run", progress=False)


def test_a_stage_for_tensorboard_needs_it_before_the_first_is_trained(
    photos: Folder, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(*_: object, **__: object) -> None:
        raise ModuleNotFoundError

    last = {"name": "last", "training": {"epochs": 1, "tensorboard": True}}
    recipe = tiny(photos(), epochs=1).model_copy(update={"stages": ({"name": "plain"}, last)})
    monkeypatch.setattr("segwright.training.run.TensorBoardLogger", missing)
    with pytest.raises(MissingExtraError, match="tensorboard is not installed"):
        train_in_stages(recipe, run=tmp_path / "run", progress=False)
    assert not list(tmp_path.glob("run*"))


def test_a_loader_is_tried_once_for_the_same_draws(
    photos: Folder, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, tried = stages.loaders_of, []

    def counted(recipe: Recipe, images: Prepared, **given: Any) -> Any:
        tried.append((recipe.augment.preset, given["share"]))
        return real(recipe, images, **given)

    def not_now(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(stages, "loaders_of", counted)
    monkeypatch.setattr(stages, "train", not_now)
    with pytest.raises(KeyboardInterrupt):
        train_in_stages(staged(tiny, photos()), run=tmp_path / "run", progress=False)
    assert tried == [("medium", (0, 1)), ("none", (0, 1))]
    assert (tmp_path / "run.stages" / "staged.yaml").is_file(), "only what was checked is begun"


def test_of_two_runs_of_one_name_that_begin_together_one_is_refused(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tiny(tmp_path / "none", epochs=1).model_copy(update={"stages": ({"name": "one"},)})

    def another(*_: object, **__: object) -> None:
        with pytest.raises(RunError, match="this run exists already"):
            train_in_stages(recipe, run=tmp_path / "run", progress=False)
        raise RecipeError("there are no images")

    monkeypatch.setattr(stages, "prepare", another)
    with pytest.raises(RecipeError, match="there are no images"):
        train_in_stages(recipe, run=tmp_path / "run", progress=False)
    assert not list(tmp_path.glob("run*"))


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        ({"training": {"epochs": 1}}, "needs a 'name'"),
        ({"name": "a/b"}, "needs a 'name'"),
        ({"name": "a", "model": {"name": "fpn"}}, "may change"),
        ({"name": "a", "loss": {"formular": "ce"}}, "loss.formular"),
        ({"name": "a", "training": {"epochs": 1, "minutes": 1}}, "not both"),
    ],
)
def test_a_wrong_stage_is_refused(stage: dict[str, object], message: str, tiny: Tiny, tmp_path: Path) -> None:
    from segwright.recipe import make_recipe

    tree = {**tiny(tmp_path).as_dict(), "stages": [stage]}
    with pytest.raises(RecipeError, match=message):
        make_recipe(tree)


def test_a_stage_has_a_budget_of_its_own(tiny: Tiny, tmp_path: Path) -> None:
    recipe = tiny(tmp_path, epochs=7).model_copy(update={"stages": ({"name": "a", "training": {"minutes": 2}},)})
    ((_, stage),) = stages_of(recipe)
    assert (stage.training.epochs, stage.training.minutes, stage.stages) == (None, 2, ())


def test_unknown_parts_and_heads_are_named(photos: Folder, tiny: Tiny, tmp_path: Path) -> None:
    data = photos()
    with pytest.raises(RecipeError, match=r"no part 'branches.frist'.*branches.first"):
        train_in_stages(
            tiny(data, model=DUAL, training={"trainable": ["branches.frist"]}), run=tmp_path / "a", progress=False
        )
    with pytest.raises(RecipeError, match="has one head alone"):
        train_in_stages(tiny(data, loss={"heads": ["main"]}), run=tmp_path / "b", progress=False)
    assert not list(tmp_path.glob("[ab]*"))


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("two_step", {"labels": ["class 1"], "rare": BRANCH, "rest": BRANCH}),
        ("cascade", {"labels": [], "segmenter": BRANCH, "whole": ["class 0"], "width": 4, "depth": 2}),
        ("refined", {"base": BRANCH, "width": 4, "depth": 2}),
    ],
)
def test_composed_models_train_from_one_recipe(
    name: str, arguments: dict[str, object], photos: Folder, tiny: Tiny, tmp_path: Path
) -> None:
    recipe = tiny(photos(24), epochs=12, model={"name": name, "arguments": arguments})
    run = train_in_stages(recipe, run=tmp_path / "run", progress=False)
    assert load_bundle(run).info["score"]["value"] > 0.6
