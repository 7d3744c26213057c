"""Training in stages: each begins where the one before it ended, moves its own parts alone, and can be resumed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from segwright import verbs
from segwright.bundle import load_bundle
from segwright.errors import RecipeError, RunError
from segwright.files import read_json
from segwright.recipe import Recipe, read_recipe, stages_of
from segwright.training import stages
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
