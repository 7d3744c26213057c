"""Verbs of many runs: trained from one file, searched, compared, found again."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from segwright import runs
from segwright.errors import one_line
from segwright.metrics import Definition

if TYPE_CHECKING:
    from segwright.studies.compare import RunComparison
    from segwright.studies.estimate import Estimate
    from segwright.studies.index import Known
    from segwright.studies.leaderboard import Leaderboard
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
        SegwrightError: the study cannot be read, or the folder cannot be used.
        RunStopped: a signal ended it; the same call goes on.
    """
    from segwright.studies import grid
    from segwright.studies.machines import Machines
    from segwright.studies.runner import run_study

    read, there = grid.read_study(Path(source)), machines or Machines()
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
    if outcome.done:
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
        SegwrightError: the study cannot be read.
    """
    from segwright.studies import grid
    from segwright.studies.estimate import estimate
    from segwright.studies.machines import Machines

    read, there = grid.read_study(Path(source)), machines or Machines()
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
    from segwright.studies import learning_curve as curves
    from segwright.studies.machines import Machines

    recipe, there = runs.recipe_for(Path(source), start_from=None, budget=(None, None), overrides=()), machines
    there = there or Machines()
    name = f"{runs.stem_of(Path(source))}-learning-curve"
    folder = Path("studies-runs") / name if out is None else Path(out)
    return curves.learning_curve(
        recipe, folder, name=name, seeds=tuple(seeds), more=more, machines=there, progress=progress
    )


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


def leaderboard(
    folder: str | Path,
    *,
    by: Sequence[str] = (),
    split: str = "val",
    baseline: str | None = None,
    definition: Definition | None = None,
) -> tuple[Leaderboard, list[Path]]:
    """The table of a study, or of any folder of runs, from their scores on disk.

    Args:
        folder: of a study, or of runs.
        by: keys of the recipe whose values make the rows.
        split: whose scores count.
        baseline: a row that all others are compared with; none: the study's own.
        definition: of the score; none: the study's own.

    Returns:
        The table, and the files that were written: `results.csv` and `leaderboard.md`, `.tex` and `.html`.

    Raises:
        SegwrightError: there are no scored runs, or no such key or row.
    """
    from segwright.reporting.board_page import write_board_page
    from segwright.reporting.board_tables import write_tables
    from segwright.studies.entries import plan_of
    from segwright.studies.leaderboard import board

    place = runs.existing(Path(folder))
    table = board(plan_of(place, by=by, baseline=baseline, definition=definition), split=split)
    return table, [*write_tables(table, place), write_board_page(table, place / "leaderboard.html")]


def compare(
    runs_of: Sequence[str | Path],
    *,
    out: str | Path = "comparison.html",
    split: str = "val",
    count: int = 5,
    images: bool = True,
    device: str = "auto",
    progress: bool = True,
) -> tuple[RunComparison, list[Path]]:
    """Compare trained models on the same images.

    Args:
        runs_of: folders of two or more runs; the first is what the others are compared with.
        out: the HTML file; images also go into a PNG of that name.
        split: whose scores.
        count: how many of the best, the worst and the most unlike images are shown.
        images: show images, which the models label for it.
        device: auto, cpu, cuda ...
        progress: show how far it is.

    Returns:
        What was found, and the files that were written.

    Raises:
        SegwrightError: a run is missing, was scored on other images, or its images are no longer there.
    """
    from dataclasses import replace

    from segwright.reporting.comparison_page import write_comparison
    from segwright.studies import compare as comparing

    found = comparing.compare([Path(one) for one in runs_of], split=split)
    if images:
        found = replace(found, sides=comparing.show(found, count=count, device=device, progress=progress))
    return found, write_comparison(found, Path(out))


def list_runs(
    folder: str | Path = ".",
    *,
    conditions: Iterable[str] = (),
    sort: str | None = None,
    tag: Sequence[str] = (),
    untag: Sequence[str] = (),
) -> list[Known]:
    """The runs of a project for which all conditions hold, tagged where that is asked for.

    Args:
        folder: of the project, or of runs.
        conditions: such as `model=unet`, `miou>0.6`, `tag=good`, `name~night`.
        sort: a key, with a `-` in front for the largest first.
        tag: tags that the runs are given.
        untag: tags that are taken away.

    Raises:
        SegwrightError: there are no runs, or an unknown key.
    """
    from segwright.studies import index

    root = Path(folder)
    found = index.choose(index.known_runs(root), conditions)
    if tag or untag:
        index.tag(found, untag, take_away=True)
        index.tag([index.known(root, run.run) for run in found], tag)
        found = [index.known(root, run.run) for run in found]
    return found if sort is None else index.ordered(found, sort)


def remove_runs(found: Sequence[Known], folder: str | Path = ".") -> list[Path]:
    """Move runs to the folder's `.trash/` and return where they lie now; nothing is deleted.

    Raises:
        SegwrightError: a run is being written, or cannot be moved.
    """
    from segwright.studies import index

    return index.remove(found, Path(folder))
