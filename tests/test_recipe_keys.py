"""The tables of all keys: whole, as the recipe has them, and as the documentation shows them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from segwright.errors import RecipeError
from segwright.recipe import STAGE_BRANCHES, Part, Recipe, make_recipe, override
from segwright.recipe.keys import Key, as_page, key_tables, markdown_table, tables_from

PAGE = Path(__file__).parent.parent / "docs" / "recipe.md"
KEYS = {key.name: key for table in key_tables() for key in table.keys}


def names(branch: type[Part], above: str = "") -> Iterator[str]:
    for name, field in branch.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, Part):
            yield from names(kind, f"{above}{name}.")
        else:
            yield above + name


def found(beginning: str) -> list[Key]:
    return [key for table in tables_from(beginning) for key in table.keys]


def test_every_key_stands_in_the_tables_once() -> None:
    listed = [key.name for table in key_tables() for key in table.keys]
    assert sorted(listed) == sorted(names(Recipe))


@pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)
def test_every_key_has_a_description_and_a_default_that_can_be_given(key: Key) -> None:
    assert len(key.line) > 5, f"give {key.name} a description"
    assert not key.line.endswith(".")
    assert key.values
    if key.name != "stages":
        assert override(Recipe(), [f"{key.name}={key.default}"]) == Recipe()


@pytest.mark.parametrize(
    ("name", "values", "default"),
    [
        ("data.split.kind", "auto, given, random, stratified, grouped, kfold", "auto"),
        ("data.split.seed", "whole number, 0 to 4294967295", "0"),
        ("data.drop_noise", "true, false", "false"),
        ("classes.colors", "list of lists of 3 whole numbers, 0 to 255", "[]"),
        ("classes.mask_values", "list of whole numbers, or lists of whole numbers", "[]"),
        ("augment.crop_px", "list of 2 whole numbers, at least 1, or null", "null"),
        ("augment.grid_distortion", "number, 0 to 0.5, or null", "null"),
        ("model.arguments", "mapping", "{}"),
        ("model.freeze_encoder", "true, false, or whole number, 1 to 5", "false"),
        ("optimizer.momentum", "number, 0 to below 1", "0.9"),
        ("optimizer.lr", "number, above 0", "0.001"),
        ("schedule.drop", "number, above 0, below 1", "0.1"),
        ("schedule.milestones", "list of numbers, 0 to 1", "[0.5, 0.75]"),
        ("training.devices", "whole number, at least 1, or auto", "auto"),
        ("training.compile", "auto, 'on', 'off'", "auto"),
    ],
)
def test_values_in_words(name: str, values: str, default: str) -> None:
    assert (KEYS[name].values, KEYS[name].default) == (values, default)


def test_every_word_of_a_menu_is_taken() -> None:
    """A menu stands as it must be written: YAML reads a bare `on` as true."""
    for text in KEYS["training.compile"].values.split(", "):
        assert override(Recipe(), [f"training.compile={text}"]).training.compile == yaml.safe_load(text)


def test_stages_say_which_parts_they_may_hold() -> None:
    assert all(name in KEYS["stages"].values for name in STAGE_BRANCHES)
    assert make_recipe({"stages": [{"name": "first"} | {name: {} for name in STAGE_BRANCHES}]})


def test_a_beginning_chooses_keys() -> None:
    assert {key.name for key in found("")} == {*KEYS}
    assert [key.name for key in found("data.split.fold")] == ["data.split.folds", "data.split.fold"]
    assert {key.name.partition(".")[0] for key in found("mix.")} == {"mix"}


@pytest.mark.parametrize(
    ("beginning", "said"),
    [
        ("agument", "augment"),
        ("lr", "Did you mean optimizer.lr or optimizer.encoder_lr_factor?"),
        ("optimiser.lr", "optimizer.lr"),
        ("augment.rotat_degrees", "Did you mean 'augment.rotate_degrees'?"),
        ("zzz", "There are: data, data.split, classes"),
    ],
)
def test_an_unknown_beginning_is_refused_with_the_nearest_names(beginning: str, said: str) -> None:
    with pytest.raises(RecipeError, match="no key begins with") as caught:
        tables_from(beginning)
    assert said in str(caught.value)


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text() == as_page(), "run: python -m segwright.recipe.keys > docs/recipe.md"


def test_bars_do_not_break_a_table() -> None:
    assert markdown_table(["a"], [["x|y"]]).splitlines()[-1] == r"| x\|y |"
