"""Verbs of many runs: trained from one file, searched."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from segwright import runs
from segwright.errors import one_line

if TYPE_CHECKING:
    from segwright.studies.estimate import Estimate
    from segwright.studies.learning_curve import Curve
    from segwright.studies.machines import Machines
    from segwright.studies.runner import Outcome
    from segwright.studies.tune import Effort
    from segwright.studies.tuned import Objective, Tuned


def study(
    source: str | Path,
    *,
    out: str | Path | None = None,
    only: Sequence[str] = (),
    seeds: Sequence[int] = (),
    machines: Machines | None = None,
    retry: bool = False,
    progress: bool = True,
) -> Outcome:
    """Train every run of a study that is not there yet, and write its leaderboard.

    Args:
        source: the study file.
        out: the study's folder; none: `studies-runs/NAME`.
        only: rows to train; none for all.
        seeds: to train; none for all.
        machines: where the runs run; none: here.
        retry: try those again that failed before.
        progress: show how far it is.

    Raises:
        SegwrightError: the study cannot be read, something that it needs is missing, or the folder cannot be used.
        RunStopped: a signal ended it; the same call goes on.
    """
    from segwright.studies import grid
    from segwright.studies.machines import Machines
    from segwright.studies.needs import require_needs
    from segwright.studies.runner import run_study
    from segwright.verbs.results import leaderboard

    read, there = grid.read_study(Path(source)), machines or Machines()
    require_needs(read.needs, read.folder)
    folder = Path("studies-runs") / grid.slug(read.name) if out is None else Path(out)
    outcome = run_study(
        read,
        folder,
        launcher=there.begin(folder),
        trials=grid.choose(grid.trials(read), rows=only, seeds=seeds),
        need=there.need,
        jobs=there.at_once,
        retry=retry,
        progress=progress,
    )
    # Refits have no score, so a study of these alone has no table.
    if any(folder.glob("runs/*/scores/val.npz")):
        leaderboard(folder)
    return outcome


def plan_study(
    source: str | Path,
    *,
    out: str | Path | None = None,
    only: Sequence[str] = (),
    seeds: Sequence[int] = (),
    machines: Machines | None = None,
) -> Estimate:
    """What `study` would train, about how long that takes and how much disk it needs; see there for the arguments.

    Raises:
        SegwrightError: the study cannot be read, or something that it needs is missing.
    """
    from segwright.studies import grid
    from segwright.studies.estimate import estimate
    from segwright.studies.machines import Machines
    from segwright.studies.needs import require_needs

    read, there = grid.read_study(Path(source)), machines or Machines()
    require_needs(read.needs, read.folder)
    folder = Path("studies-runs") / grid.slug(read.name) if out is None else Path(out)
    return estimate(grid.choose(grid.trials(read), rows=only, seeds=seeds), folder, jobs=there.at_once)


def learning_curve(
    source: str | Path,
    *,
    out: str | Path | None = None,
    seeds: Sequence[int] = (0, 1, 2),
    more: int = 200,
    machines: Machines | None = None,
    progress: bool = True,
) -> Curve:
    """How the score grows with the number of training images, and what more of them would bring.

    Writes `learning-curve.json` and the page `learning-curve.html` into the study's folder.

    Args:
        source: images with masks, or a recipe.
        out: the study's folder; none: `studies-runs/NAME-learning-curve`.
        seeds: of the trainings, and of the order in which images join.
        more: so many more images are asked about.
        machines: where the runs run; none: here.
        progress: show how far it is.

    Raises:
        SegwrightError: the source cannot be used.
        RunStopped: a signal ended it; the same call goes on.
    """
    from segwright.reporting.curve_page import write_curve_page
    from segwright.studies import learning_curve as curves
    from segwright.studies.machines import Machines

    recipe, there = runs.recipe_for(Path(source), start_from=None, budget=(None, None), overrides=()), machines
    there = there or Machines()
    name = f"{runs.stem_of(Path(source))}-learning-curve"
    folder = Path("studies-runs") / name if out is None else Path(out)
    curve = curves.learning_curve(
        recipe, folder, name=name, seeds=tuple(seeds), more=more, machines=there, progress=progress
    )
    write_curve_page(curve)
    return curve


def tune(
    source: str | Path,
    *,
    effort: Effort,
    out: str | Path | None = None,
    objectives: Sequence[Objective] = ("miou",),
    models: Sequence[str] = (),
    progress: bool = True,
) -> Tuned:
    """Search for a better recipe, on the validation images; a folder of an earlier call is searched further.

    Args:
        source: a study file (its `base` and `random.keys`), a recipe, or data with the usual keys.
        effort: `segwright.studies.tune.Effort`: minutes, trials, jobs.
        out: the folder of the search; none: `studies-runs/NAME/tune`.
        objectives: what counts, the most important one first; with several, no trial is stopped early.
        models: to choose from as well, as `fpn:resnet18`, or `unet` for a model without an encoder.
        progress: say how every trial ended.

    Returns:
        All trials and the best; its recipe stands in the folder as best.yaml.

    Raises:
        SegwrightError: the source or the folder cannot be used, or no trial came to its end.
        MissingExtraError: Optuna is not installed.
    """
    from rich.console import Console

    from segwright.reporting.tune_page import write_tune_page
    from segwright.studies.space import searched
    from segwright.studies.tune import tune as search_for
    from segwright.verbs.training import refuse_poison

    name, search = searched(runs.existing(Path(source)), models=models, objectives=tuple(objectives))
    folder = Path("studies-runs") / name / "tune" if out is None else Path(out)
    if search.base.data.audit:
        refuse_poison(search.base, source=Path(str(search.base.data.path)), progress=progress)
    console = Console(stderr=True, quiet=not progress, highlight=False)
    found = search_for(
        search, effort, out=folder, say=lambda line: console.print(one_line(line), markup=False, soft_wrap=True)
    )
    write_tune_page(folder)
    return found
