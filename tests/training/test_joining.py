"""Two trained runs become one model, which is trained further."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from segwright.bundle import load_bundle, save_bundle
from segwright.errors import RecipeError
from segwright.models import ModelSpec, build_model
from segwright.models.branches import branches_of
from segwright.recipe import Recipe, read_recipe
from segwright.training import joining
from segwright.training.assembly import start_of
from segwright.training.preparation import prepare
from segwright.training.run import train
from segwright.types import ClassSet

Tiny = Callable[..., Recipe]
Folder = Callable[..., Path]


@pytest.fixture(scope="module")
def two(write_photos: Folder, tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """Images, and two runs on them with different networks and normalisations."""
    root = tmp_path_factory.mktemp("two")
    data = write_photos(root / "photos", count=12)
    first = train(tiny(data, epochs=4), run=root / "first", progress=False)
    other = {"name": "encoder_decoder", "arguments": {"width": 4}, "mean": [0.3], "std": [0.4]}
    second = train(tiny(data, epochs=2, model=other), run=root / "second", progress=False)
    return data, first, second


def joined(tiny: Tiny, two: tuple[Path, Path, Path], *, name: str = "uformer", **parts: dict) -> Recipe:
    data, first, second = two
    model = {"name": name, "arguments": {}, "branches": [str(first), str(second)], **parts.pop("model", {})}
    return tiny(data, epochs=parts.pop("epochs", 1), model=model, **parts)  # type: ignore[arg-type]


def test_two_runs_become_one_and_go_on(
    tiny: Tiny, two: tuple[Path, Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = joined(tiny, two, model={"freeze_encoder": True}, optimizer={"lr": 1e-9}, training={"ema": 0.0})
    run = train(recipe, run=tmp_path / "both", progress=False)
    images = torch.randint(0, 256, (2, 1, 32, 32), dtype=torch.uint8)
    with torch.inference_mode():
        first, second, both = (load_bundle(path).model(images).softmax(1) for path in (*two[1:], run))
    torch.testing.assert_close(both, (first + second) / 2, rtol=1e-3, atol=1e-4)
    settled = read_recipe(run / "recipe.yaml").model
    assert (settled.mean, settled.std, settled.encoder) == ((0.0,), (1.0,), None)
    assert settled.arguments["second"]["mean"] == [0.3]

    def without_weights(path: Path) -> None:
        raise AssertionError(f"{path} is not needed to go on")

    monkeypatch.setattr(joining, "load_bundle", without_weights)
    train(recipe, run=run, resume=True, changes=["training.epochs=2"], progress=False)


def test_a_dual_model_is_fused_first_and_then_tuned(tiny: Tiny, two: tuple[Path, Path, Path], tmp_path: Path) -> None:
    recipe = joined(
        tiny, two, name="dual", model={"freeze_encoder": True, "unfreeze_at": 1, "arguments": {"fusion_width": 4}},
        training={"epochs": 2, "ema": 0.0},
    )  # fmt: skip
    run = train(recipe, run=tmp_path / "fused", progress=False)
    assert load_bundle(run).model.spec.arguments["fusion_width"] == 4
    before = load_bundle(two[1]).model.state_dict()
    state = torch.load(run / "resume.ckpt", weights_only=True)["state_dict"]
    moved = [
        name for name, value in before.items() if not torch.equal(state[f"model.net.branches.first.{name}"], value)
    ]
    assert moved


def test_the_rules_of_the_recipe_take_the_place_of_those_of_the_branches(
    tiny: Tiny, two: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    """Branches of three classes, of which the last is never answered, under a recipe of two classes."""
    data, branch = two[0], tmp_path / "branch"
    spec = ModelSpec("unet", 1, 3, arguments={"width": 4, "depth": 2}, never_predict=(2,))
    classes = ClassSet(("a", "b", "c"), ((0, 0, 0), (9, 9, 9), (99, 99, 99)), never_predict=(2,))
    save_bundle(branch, build_model(spec), classes=classes, info={"licences": []})
    recipe = joined(tiny, (data, branch, branch), optimizer={"lr": 1e-9}, training={"ema": 0.0})
    run = train(recipe, run=tmp_path / "both", progress=False)
    settled = read_recipe(run / "recipe.yaml").model
    members = [settled.arguments[key] for key in ("first", "second")]
    assert [member["never_predict"] for member in members] == [[], []]
    assert [member.spec.never_predict for member in branches_of(load_bundle(run).model) or ()] == [(), ()]
    last = [load_bundle(run).classes.names[1]]
    ruled = joined(tiny, (data, branch, branch), classes={"never_predict": last, "ignore_in_loss": last})
    again = train(ruled, run=tmp_path / "again", progress=False)
    assert [member.spec.never_predict for member in branches_of(load_bundle(again).model) or ()] == [(1,), (1,)]


def test_a_model_of_models_goes_on_under_the_rules_of_now(photos: Folder, tiny: Tiny) -> None:
    branch = {"name": "unet", "arguments": {"width": 4, "depth": 2}, "never_predict": [1]}
    recipe = tiny(photos(), model={"name": "uformer", "arguments": {"first": branch, "second": branch}})
    start = start_of(recipe, prepare(recipe, progress=False), start_from=None, resumed=True)
    assert [member.spec.never_predict for member in branches_of(start.model) or ()] == [(), ()]


def test_branches_are_for_models_of_two(tiny: Tiny, two: tuple[Path, Path, Path], tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="uformer"):
        train(joined(tiny, two, name="unet"), run=tmp_path / "run", progress=False)
    with pytest.raises(RecipeError, match="one or the other"):
        train(joined(tiny, two), run=tmp_path / "run", start_from=two[1], progress=False)
    assert not (tmp_path / "run").exists()
