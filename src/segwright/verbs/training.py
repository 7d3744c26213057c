"""Verbs of one run: begin it, and go on with it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from segwright import runs
from segwright.errors import DataError, one_line
from segwright.recipe import override

if TYPE_CHECKING:
    from segwright.recipe import Recipe


def train(
    source: str | Path,
    *,
    name: str | None = None,
    out: str | Path = "runs",
    minutes: float | None = None,
    epochs: int | None = None,
    overrides: Mapping[str, object] | Iterable[str] = (),
    start_from: str | Path | None = None,
    progress: bool = True,
) -> Path:
    """Train a model, score it on the validation images and write its report.

    Args:
        source: images with masks (a folder, npz, VOC devkit, CSV manifest or data.yaml card), or a recipe.
        name: of the run; none: that of the source and the next free number.
        out: the folder of all runs.
        minutes: budget by the clock; not with `epochs`.
        epochs: budget in epochs.
        overrides: keys of the recipe, as `{"model.name": "unet"}` or `["model.name=unet"]`.
        start_from: a run whose model is trained further, with its recipe.
        progress: show how far it is.

    Returns:
        The folder of the run.

    Raises:
        SegwrightError: the source, the recipe or the name cannot be used, or training cannot go on.
    """
    from segwright.training.follow import follow
    from segwright.training.stages import train_in_stages

    recipe = runs.recipe_for(
        Path(source),
        start_from=None if start_from is None else Path(start_from),
        budget=(minutes, epochs),
        overrides=overrides,
    )
    follow(recipe.training.devices)
    run = runs.new_run(Path(out), name=name, source=Path(source))
    if recipe.data.audit:
        refuse_poison(recipe, source=Path(source), progress=progress)
    train_in_stages(recipe, run=run, start_from=None if start_from is None else Path(start_from), progress=progress)
    _score_and_report(run, progress=progress)
    return run


def resume(
    run: str | Path,
    *,
    minutes: float | None = None,
    epochs: int | None = None,
    overrides: Mapping[str, object] | Iterable[str] = (),
    force: bool = False,
    progress: bool = True,
) -> Path:
    """Go on with a run that was stopped, with its own recipe, as if it had never been stopped.

    Args:
        run: its folder.
        minutes: a new budget by the clock; what is spent already counts.
        epochs: a new budget in epochs; those that are done already count.
        overrides: other keys of the recipe to change.
        force: go on though the recipe or the images are not those that the run was trained with.
        progress: show how far it is.

    Raises:
        RunError: there is no such run, it cannot be resumed, it is being written to, or something changed.
        RunStopped: a signal ended it again.
    """
    from segwright.training.follow import follow
    from segwright.training.stages import resume_in_stages, staged_recipe

    changes = runs.assignments(overrides, budget=(minutes, epochs))
    staged = staged_recipe(Path(run))
    folder = Path(run) if staged is not None else runs.find_run(Path(run))
    follow(override(staged or runs.recipe_of(folder), changes).training.devices)
    resume_in_stages(folder, changes=changes, force=force, progress=progress)
    _score_and_report(folder, progress=progress)
    return folder


def refit(
    run: str | Path,
    *,
    name: str | None = None,
    out: str | Path = "runs",
    epochs: int | None = None,
    overrides: Mapping[str, object] | Iterable[str] = (),
    progress: bool = True,
) -> Path:
    """Train a run once more, on its training and validation images together; see `segwright.training.refit`.

    Args:
        run: its folder.
        name: of the new run; none: that of the run with `-refit`.
        out: the folder of all runs.
        epochs: in place of those that the kept weights of the run had.
        overrides: other keys of the recipe to change.
        progress: show how far it is.

    Returns:
        The folder of the new run, which has no score.

    Raises:
        SegwrightError: there is no such run, its images changed, its schedule waits for validations, or the name is
            taken.
    """
    from rich.console import Console

    from segwright.training.follow import follow
    from segwright.training.refit import refit_of
    from segwright.training.stages import train_in_stages

    folder = runs.find_run(Path(run))
    changes = runs.assignments(overrides)
    follow(override(runs.recipe_of(folder), changes).training.devices)
    target = runs.new_run(Path(out), name=name or f"{folder.resolve().name}-refit", source=folder)
    found = refit_of(folder, epochs=epochs, changes=changes, progress=progress)
    Console(stderr=True, quiet=not progress, highlight=False).print(one_line(str(found)), markup=False, soft_wrap=True)
    train_in_stages(found.recipe, run=target, start_from=found.start_from, progress=progress)
    _score_and_report(target, progress=progress)
    return target


def refuse_poison(recipe: Recipe, *, source: Path, progress: bool) -> None:
    """Say what is worth a look, and stop on what would spoil the training.

    Raises:
        DataError: such a thing was found.
        SegwrightError: as for the training itself.
    """
    from rich.console import Console

    from segwright.auditing.poison import find_poison
    from segwright.files import IMAGE_SUFFIXES
    from segwright.training.preparation import prepare

    data = recipe.data.path if runs.is_recipe(source) else source
    try:
        images = prepare(recipe, progress=progress)
    except DataError as error:
        if error.file is None or Path(error.file).suffix.lower() not in IMAGE_SUFFIXES:
            raise
        more = f"{error.mend}. To see all such files: segwright audit {data}"
        raise type(error)(error.problem, mend=more, file=error.file) from None
    console = Console(stderr=True, quiet=not progress, highlight=False)
    grave = []
    for finding in find_poison(images.pack, images.split, images.classes):
        text = f"{finding.summary}{_first(finding.ids)}"
        if finding.gravity == "mend":
            grave.append(text)
        else:
            console.print(one_line(f"{text}. See: segwright audit {data}"), markup=False, soft_wrap=True)
    if grave:
        raise DataError(
            "; ".join(grave),
            mend=f"see them with 'segwright audit {data} --fix clean.yaml' and train clean.yaml, leave them out with "
            "data.drop or data.drop_noise, or go on as it is with --no-audit (data.audit=false)",
            file=data,
        )


def _first(ids: Sequence[str]) -> str:
    return f" (first {', '.join(ids[:3])})" if ids else ""


def _score_and_report(run: Path, *, progress: bool) -> None:
    from segwright.bundle import note_score
    from segwright.verbs.models import evaluate
    from segwright.verbs.results import report

    if runs.recipe_of(run).data.split.refit is None:
        told = evaluate(run, progress=progress).summary["definitions"]["declared"]["miou"]
        ends = None if told["low"] is None else [told["low"], told["high"]]
        note_score(run, {"name": "miou", "split": "val", "value": told["estimate"], "interval": ends})
    report(run)
