from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segwright.errors import DataError, RecipeError
from segwright.recipe import Recipe, budget_text, make_recipe, override, read_recipe, write_recipe


def test_written_and_read_recipes_are_equal(tmp_path: Path) -> None:
    recipe = make_recipe({"data": {"path": "photos/"}, "augment": {"scale": [0.5, 2.0], "crop_px": [64, 128]}})
    write_recipe(tmp_path / "recipe.yaml", recipe)
    assert read_recipe(tmp_path / "recipe.yaml") == recipe


def test_defaults_are_a_whole_recipe() -> None:
    assert make_recipe(Recipe().as_dict()) == Recipe()


@pytest.mark.parametrize(
    ("tree", "said"),
    [
        ({"modle": {}}, "did you mean 'model'"),
        ({"optimizer": {"lrr": 1}}, "unknown key 'optimizer.lrr'. Did you mean 'lr'"),
        ({"optimizer": {"lr": -1}}, "'optimizer.lr' = -1"),
        ({"training": {"epochs": 3, "minutes": 2}}, "not both"),
        ({"data": {"split": {"kind": "rnadom"}}}, "'data.split.kind' = 'rnadom'"),
        ({"training": {"precision": "bf17"}}, "'bf16'"),
        ({"optimizer": {"lr": float("nan")}}, "'optimizer.lr' = nan: must be a finite number"),
        ({"optimizer": {"lr": float("inf")}}, "finite"),
        ({"training": {"seed": 2**32}}, "'training.seed' = 4294967296"),
        ({"augment": {"crop_px": [0, 8]}}, "'augment.crop_px.0' = 0"),
        ({"augment": {"scale": [2, 1]}}, "in this order"),
        ({"classes": {"colors": [[0, 0, 300]]}}, "'classes.colors.0.2' = 300"),
        ({"classes": {"mask_values": [10**30]}}, "'classes.mask_values.0'"),
        ({"classes": {"mask_values": [0, [1, "a"]]}}, "'classes.mask_values.1' = [1, 'a']: this is a whole number"),
        ({"classes": {"mask_values": [0, []]}}, "'classes.mask_values.1' = []: this is a whole number"),
        ({"data": {"drop": 3}}, "'data.drop' = 3: this is a list"),
        ({"data": 3}, "'data' = 3: this is a mapping"),
        ({"model": {"name": "x" * 9999, "width": 1}}, "unknown key 'model.width'"),
    ],
)
def test_a_wrong_key_or_value_is_named_with_its_mend(tree: dict[str, object], said: str) -> None:
    with pytest.raises(RecipeError) as caught:
        make_recipe(tree)
    assert said.lower() in str(caught.value).lower()
    assert "\n" not in str(caught.value)


def test_overrides_are_read_as_yaml_and_as_people_write_numbers() -> None:
    recipe = override(
        Recipe(),
        [
            "optimizer.lr=3e-4",
            "model.name=unet",
            "model.encoder=null",
            "augment.crop_px=[64, 128]",
            "model.arguments.width=8",
        ],
    )
    assert recipe.optimizer.lr == 3e-4
    assert (recipe.model.name, recipe.model.encoder) == ("unet", None)
    assert recipe.augment.crop_px == (64, 128)
    assert recipe.model.arguments == {"width": 8}


@pytest.mark.parametrize("text", ["optimizer.lr", "=3", "optimizer..lr=3", "optimiser.lr=3", "optimizer.lr.x=3"])
def test_an_override_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(RecipeError):
        override(Recipe(), [text])


def test_a_file_that_is_no_mapping_is_refused(tmp_path: Path) -> None:
    (tmp_path / "list.yaml").write_text("- 1\n- 2\n")
    (tmp_path / "broken.yaml").write_text("a: [1,\n")
    (tmp_path / "object.yaml").write_text("!!python/object/apply:os.system ['true']\n")
    with pytest.raises(RecipeError, match="mapping"):
        read_recipe(tmp_path / "list.yaml")
    for name in ("broken.yaml", "object.yaml", "absent.yaml"):
        with pytest.raises(DataError, match=name):
            read_recipe(tmp_path / name)


def test_trees_without_end_are_refused() -> None:
    deep: object = 1
    for _ in range(300):
        deep = [deep]
    loop: list[object] = []
    loop.append(loop)
    for value in (deep, loop):
        with pytest.raises(RecipeError, match=r"cannot be written down"):
            make_recipe({"model": {"arguments": {"a": value}}})


def test_an_override_that_yaml_cannot_read_is_a_text() -> None:
    assert override(Recipe(), ["data.path=2024-13-45"]).data.path == "2024-13-45"


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=True) | st.text(max_size=8),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
        max_leaves=8,
    )
)
def test_any_tree_is_a_recipe_or_a_recipe_error(tree: object) -> None:
    for branch in ("data", "model", "training"):
        with contextlib.suppress(RecipeError):
            recipe = make_recipe({branch: tree})
            assert make_recipe(recipe.as_dict()) == recipe


def test_the_budget_in_words() -> None:
    assert budget_text(make_recipe({"training": {"minutes": 15}}).training) == "15 minutes"
    assert budget_text(Recipe().training) == "100 epochs"


@pytest.mark.parametrize("word", ["on", "off", "auto"])
def test_yamls_switches_are_words(word: str) -> None:
    assert override(Recipe(), [f"training.compile={word}"]).training.compile == word
