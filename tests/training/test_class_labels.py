"""Labels in the arguments of a model mean the classes that they were given for, whatever classes come next."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from segwright.bundle import save_bundle
from segwright.errors import RecipeError
from segwright.models import ModelSpec, build_model
from segwright.recipe import Recipe
from segwright.training.assembly import start_of, with_architecture
from segwright.training.class_labels import with_labels, with_names
from segwright.training.preparation import prepare
from segwright.types import ClassSet

Folder = Callable[..., Path]
Tiny = Callable[..., Recipe]
SMALL = {"name": "unet", "arguments": {"width": 2, "depth": 1}}
NAMES = ("background", "soil", "rock")


def classes(*names: str) -> ClassSet:
    return ClassSet(names=names, colors=tuple((k, k, k) for k in range(len(names))))


NESTED: dict[str, Any] = {
    "width": 4,
    "labels": [2],
    "whole": None,
    "segmenter": {"name": "two_step", "arguments": {"labels": [1], "rare": SMALL, "rest": "unet"}},
}


def test_labels_are_named_and_read_anew_within_parts_too() -> None:
    named = with_names("cascade", NESTED, NAMES)
    assert named["labels"] == ["rock"]
    assert named["background"] == "background", "the usual label 0 may be another class later"
    assert named["segmenter"]["arguments"]["labels"] == ["soil"]
    assert with_labels("cascade", named, classes(*NAMES)) == {**NESTED, "background": 0}
    turned = with_labels("cascade", named, classes("rock", "sand", "soil", "background"))
    assert (turned["labels"], turned["background"], turned["whole"]) == ([0], 3, None)
    assert turned["segmenter"]["arguments"] == {"labels": [2], "rare": SMALL, "rest": "unet"}
    members = [{"name": "two_step", "arguments": {"labels": [2]}}, SMALL]
    assert with_names("ensemble", {"members": members}, NAMES)["members"] == [
        {"name": "two_step", "arguments": {"labels": ["rock"]}}, SMALL,
    ]  # fmt: skip


def test_what_sets_no_class_apart_goes_with_any_classes() -> None:
    arguments = {"labels": [], "segmenter": "transunet", "width": 4}
    named = with_names("cascade", arguments, ("sky", "rock"))
    assert named == arguments, "background is of no use without rare classes"
    assert with_labels("cascade", named, classes("road", "tree")) == arguments
    assert with_names("cascade", {**arguments, "whole": [1]}, ("sky", "rock"))["background"] == "sky"


def test_models_without_labels_keep_their_arguments() -> None:
    arguments = {"width": 2, "depth": 1, "norm": "group"}
    assert with_names("unet", arguments, NAMES) == with_labels("unet", arguments, classes(*NAMES)) == arguments


def test_a_class_that_is_not_there_is_named() -> None:
    with pytest.raises(
        RecipeError, match=r"no class 'rock', which model 'cascade' sets apart.*Did you mean 'rocks'.*classes.names"
    ):
        with_labels("cascade", with_names("cascade", NESTED, NAMES), classes("background", "soil", "rocks"))


def test_a_model_that_is_trained_further_sets_the_same_classes_apart(
    photos: Folder, tiny: Tiny, tmp_path: Path
) -> None:
    arguments = {"labels": [1], "rare": SMALL, "rest": SMALL}
    spec = ModelSpec("two_step", in_channels=1, num_classes=2, arguments=arguments, mean=(0.5,), std=(0.2,))
    save_bundle(tmp_path / "bundle", build_model(spec), classes=classes("sky", "rock"), info={})
    for names, labels in ((("sky", "rock"), [1]), (("rock", "sky"), [0])):
        recipe = with_architecture(tiny(photos(name=names[0]), classes={"names": names}), tmp_path / "bundle")
        images = prepare(recipe, progress=False)
        start = start_of(recipe, images, start_from=tmp_path / "bundle", resumed=False)
        assert start.model.spec.arguments["labels"] == labels
        again = start_of(start.recipe, images, start_from=None, resumed=True)
        assert again.model.spec == start.model.spec
    other = with_architecture(tiny(photos(name="other"), classes={"names": ["grass", "tree"]}), tmp_path / "bundle")
    with pytest.raises(RecipeError, match=r"no class 'rock'.*start from a model of these classes"):
        start_of(other, prepare(other, progress=False), start_from=tmp_path / "bundle", resumed=False)
