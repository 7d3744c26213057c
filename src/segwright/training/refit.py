"""A refit: a run is trained once more, on its training and validation images together, before its model is handed over.

What the run has found out on its validation images, how many epochs are best, is kept; then they are learnt from too.
An epoch has more images, so the same number of epochs has more steps. Nothing is left to validate on: the weights of
the end are kept (their average, where the recipe has one), and the model has no score of its own. Test images stay out.
The schedule of the learning rate runs to its end over these epochs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segwright.bundle import INDEX_FILE, find_bundle
from segwright.errors import RecipeError, RunError
from segwright.files import read_json
from segwright.recipe import Recipe, make_recipe, override
from segwright.runs import recipe_of, stages_folder, started_from
from segwright.training.preparation import prepare
from segwright.training.resuming import compare_images
from segwright.training.stages import origin_of_stages


@dataclass(frozen=True)
class Refit:
    """What is to be trained.

    Attributes:
        recipe: that of the run, with the epochs of its kept weights.
        start_from: the run or bundle that the run itself started from.
        images: how many the run was trained on.
        more_images: how many labelled validation images come on top.
    """

    recipe: Recipe
    start_from: Path | None
    images: int
    more_images: int

    def __str__(self) -> str:
        name = Path(str(self.recipe.data.split.refit)).name
        return (
            f"refit    of {name}: {self.recipe.training.epochs} epochs, as its kept weights had, on "
            f"{self.images + self.more_images} images in place of {self.images}"
        )


def refit_of(run: Path, *, epochs: int | None = None, changes: Sequence[str] = (), progress: bool = True) -> Refit:
    """How a run is trained again on its training and validation images.

    Args:
        run: its folder.
        epochs: in place of those of its kept weights.
        changes: `key.path=value` texts.
        progress: show a bar while its images are packed.

    Raises:
        RunError: the run has no model yet, is a refit itself, or its images or their sides have changed.
        RecipeError: the schedule waits for validations, or a change is wrong.
    """
    before = recipe_of(run)
    if before.data.split.refit is not None:
        raise RunError("is a refit itself", mend="give the run that it was trained after", file=run)
    images = prepare(before, progress=progress)
    changed = compare_images(run, images.pack, images.split)
    if changed:
        mend = "put them back, or train a new run on them first"
        raise RunError(f"images are not what this run was trained with: {changed}", mend=mend, file=run)
    asked = override(before, changes)
    for key in ("epochs", "minutes", "early_stopping", "keep"):
        if getattr(asked.training, key) != getattr(before.training, key):
            problem = f"training.{key} of a refit follows from the run that it is of"
            raise RecipeError(problem, mend="leave it out; --epochs gives a refit other epochs", file=run)
    tree = asked.as_dict()
    tree["data"]["split"]["refit"] = str(run.resolve())
    tree["training"] |= _budget(run, epochs=epochs)
    tree["stages"] = [
        stage | {"training": stage.get("training", {}) | _budget(stages_folder(run) / f"{number}-{stage['name']}")}
        for number, stage in enumerate(tree["stages"], 1)
    ]
    more = int(images.pack.has_mask[images.indices("val")].sum())
    return Refit(
        make_recipe(tree, file=run / "recipe.yaml"), origin_of(run, before), len(images.indices("train")), more
    )


def _budget(run: Path, *, epochs: int | None = None) -> dict[str, Any]:
    """What stands in a recipe's `training` where nothing is validated."""
    reached = epochs or read_json(find_bundle(run) / INDEX_FILE)["info"]["epoch"]
    return {"epochs": reached, "minutes": None, "early_stopping": None, "keep": "last"}


def origin_of(run: Path, recipe: Recipe) -> Path | None:
    """What a run started from; one with stages starts from the last of them."""
    if recipe.stages:
        return origin_of_stages(run)
    return started_from(run)
