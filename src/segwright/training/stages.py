"""Training in stages: other parts learn, from other draws and another loss, one after the other.

A recipe's `stages` are trained in their order, each as a run of its own that starts from the weights of the one before
it; the recipe itself is the last. They lie beside the run, in `<run>.stages/`, so that each has its curves, its log and
its bundle, and a run that was stopped goes on in the stage where it was.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from segwright.errors import OutputError, RunError
from segwright.files import read_json, write_json
from segwright.recipe import Recipe, read_recipe, stages_of, write_recipe
from segwright.training.run import train

_RECIPE, _FACTS = "staged.yaml", "staged.json"


def train_in_stages(recipe: Recipe, *, run: Path, start_from: Path | None = None, progress: bool = True) -> Path:
    """Train all stages of a recipe and then the recipe itself; without stages, that alone.

    Args:
        recipe: what to do.
        run: the folder to write; it must not exist.
        start_from: a run or bundle that the first stage starts from.
        progress: show bars on a terminal.

    Raises:
        SegwrightError: as `train`.
    """
    if not recipe.stages:
        return train(recipe, run=run, start_from=start_from, progress=progress)
    folder = stages_folder(run)
    if run.exists() or folder.exists():
        raise RunError("this run exists already", mend="choose another --name, or go on with --resume", file=run)
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise OutputError(f"cannot be made ({error.strerror})", mend="choose another --out", file=folder) from None
    write_recipe(folder / _RECIPE, recipe)
    write_json(folder / _FACTS, {"start_from": None if start_from is None else str(start_from.resolve()), "done": []})
    return _go_on(recipe, run, progress=progress)


def resume_in_stages(run: Path, *, changes: Sequence[str] = (), force: bool = False, progress: bool = True) -> Path:
    """Go on with a run, in the stage where it was stopped.

    Args:
        run: its folder, which is not there while the stages before it are trained.
        changes: as for `train`; of a run that is still in its stages none.
        force: as for `train`.
        progress: show bars on a terminal.

    Raises:
        SegwrightError: as `train`.
    """
    recipe = staged_recipe(run)
    if recipe is None:
        return train(Recipe(), run=run, resume=True, changes=changes, force=force, progress=progress)
    if changes:
        problem = f"is still in its stages, which are trained as {stages_folder(run) / _RECIPE} says"
        raise RunError(problem, mend="change it when they are done, or start a new run", file=run)
    return _go_on(recipe, run, progress=progress)


def staged_recipe(run: Path) -> Recipe | None:
    """The recipe of a run that is still in its stages; None of any other, and where there is no run."""
    file = stages_folder(run) / _RECIPE
    return None if (run / "recipe.yaml").is_file() or not file.is_file() else read_recipe(file)


def stages_folder(run: Path) -> Path:
    """Where the stages of a run lie."""
    return run.with_name(f"{run.name}.stages")


def _go_on(recipe: Recipe, run: Path, *, progress: bool) -> Path:
    folder = stages_folder(run)
    facts = read_json(folder / _FACTS)
    before = None if facts["start_from"] is None else Path(facts["start_from"])
    for number, (name, stage) in enumerate(stages_of(recipe), 1):
        place = folder / f"{number}-{name}"
        if name not in facts["done"]:
            resumed = (place / "recipe.yaml").is_file()
            train(
                _from(before, stage, first=number == 1),
                run=place,
                resume=resumed,
                start_from=None if resumed else before,
                progress=progress,
            )
            facts["done"].append(name)
            write_json(folder / _FACTS, facts)
        before = place
    return train(_from(before, recipe, first=False), run=run, start_from=before, progress=progress)


def _from(before: Path | None, recipe: Recipe, *, first: bool) -> Recipe:
    """The recipe of a stage: the branches that a model is joined from were taken by the first."""
    if first or before is None:
        return recipe
    return recipe.model_copy(update={"model": recipe.model.model_copy(update={"branches": None})})
