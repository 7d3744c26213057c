"""Training in stages: other parts learn, from other draws and another loss, one after the other.

A recipe's `stages` are trained in their order, each as a run of its own that starts from the weights of the one before
it; the recipe itself is the last. They lie beside the run, in `<run>.stages/`, so that each has its curves, its log and
its bundle, and a run that was stopped goes on in the stage where it was.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from segwright.errors import OutputError, RecipeError, RunError
from segwright.files import read_json, write_json
from segwright.hardware import choose_device, choose_precision
from segwright.recipe import Part, Recipe, read_recipe, stages_of, write_recipe
from segwright.runs import STAGED_FILE, stages_folder
from segwright.training.assembly import loaders_of, module_of, start_of, with_architecture
from segwright.training.budget import Budget
from segwright.training.meeting import size_of
from segwright.training.preparation import Prepared, prepare
from segwright.training.processes import find_place
from segwright.training.run import tensorboard_logger, train

_FACTS = "staged.json"


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
    folder = _new_folder(run)
    origin = None if start_from is None else str(start_from.resolve())
    try:
        # Written before the checks, which take a while: a run that is killed in them can go on.
        write_json(folder / _FACTS, {"start_from": origin, "done": []})
        write_recipe(folder / STAGED_FILE, recipe)
        _check_devices(recipe)
        _check_parts(recipe, run=run, start_from=start_from, progress=progress)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return _go_on(recipe, run, progress=progress)


def _new_folder(run: Path) -> Path:
    """The folder of the stages, made at once: of two runs of one name that begin together, one is refused.

    Raises:
        RunError: the run is there, or in its stages.
        OutputError: the folder cannot be made.
    """
    folder = stages_folder(run)
    taken = RunError("this run exists already", mend="choose another --name, or go on with --resume", file=run)
    if run.exists():
        raise taken
    try:
        folder.mkdir(parents=True)
    except FileExistsError:
        raise taken from None
    except OSError as error:
        raise OutputError(f"cannot be made ({error.strerror})", mend="choose another --out", file=folder) from None
    return folder


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
        problem = f"is still in its stages, which are trained as {stages_folder(run) / STAGED_FILE} says"
        raise RunError(problem, mend="change it when they are done, or start a new run", file=run)
    _check_devices(recipe)
    if not any(stages_folder(run).glob("1-*")):
        _check_parts(recipe, run=run, start_from=origin_of_stages(run), progress=progress)
    return _go_on(recipe, run, progress=progress)


def staged_recipe(run: Path) -> Recipe | None:
    """The recipe of a run that is still in its stages; None of any other, and where there is no run."""
    file = stages_folder(run) / STAGED_FILE
    return None if (run / "recipe.yaml").is_file() or not file.is_file() else read_recipe(file)


def _check_devices(recipe: Recipe) -> None:
    """Processes that were started together take part in all stages, or in none.

    Raises:
        RecipeError: a stage names another number of processes.
    """
    asked = [recipe.training.devices, *(stage.training.devices for _, stage in stages_of(recipe))]
    if len({find_place(devices) for devices in asked}) > 1:
        problem = f"the stages have training.devices {', '.join(map(str, asked[1:]))}, the recipe {asked[0]}"
        raise RecipeError(problem, mend="leave it at auto everywhere under torchrun and srun")


def _check_parts(recipe: Recipe, *, run: Path, start_from: Path | None, progress: bool) -> None:
    """Make the parts of every stage once: what is wrong with the last one is said before the first is trained.

    Raises:
        RecipeError: a stage names a part, head, class or loss that there is not; the stage is named.
        SegwrightError: as `train`, before it begins.
    """
    whole = with_architecture(recipe, start_from)
    images = prepare(whole, progress=progress)
    loaded: list[tuple[Part | int, ...]] = []
    for name, stage in [*stages_of(whole), ("", whole)]:
        try:
            _check_stage(stage, images, run=run, loaded=loaded)
        except RecipeError as error:
            if not name:
                raise
            raise RecipeError(f"stage '{name}': {error.problem}", mend=error.mend, file=error.file) from None


def _check_stage(stage: Recipe, images: Prepared, *, run: Path, loaded: list[tuple[Part | int, ...]]) -> None:
    """Make the parts of a stage; `loaded` says of which draws there was a loader already, for objects take a while."""
    asked, device = stage.training, choose_device()
    size = size_of(asked.devices, device=device)
    choose_precision(asked.precision, device=device)
    if asked.tensorboard:
        tensorboard_logger(run)
    start = start_of(stage, images, start_from=None, resumed=True)
    draws = (stage.sampling, stage.mix, stage.augment, asked.batch_size, size)
    if draws not in loaded:
        loaders_of(start.recipe, images, device=torch.device("cpu"), share=(0, size))
        loaded.append(draws)
    module_of(start.recipe, images, start.model, budget=Budget(steps=1, seconds=None), say=lambda _: None)


def origin_of_stages(run: Path) -> Path | None:
    """What the first stage of a run started from; None where it started afresh."""
    return _origin_in(read_json(stages_folder(run) / _FACTS))


def _origin_in(facts: Mapping[str, Any]) -> Path | None:
    origin = facts["start_from"]
    return None if origin is None else Path(origin)


def _go_on(recipe: Recipe, run: Path, *, progress: bool) -> Path:
    folder = stages_folder(run)
    facts = read_json(folder / _FACTS)
    before = _origin_in(facts)
    for number, (name, stage) in enumerate(stages_of(recipe), 1):
        place = folder / f"{number}-{name}"
        if name not in facts["done"]:
            resumed = (place / "recipe.yaml").is_file()
            train(
                _from(before, stage, first=number == 1),
                run=place,
                resume=resumed,
                start_from=None if resumed else before,
                more_to_come=True,
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
