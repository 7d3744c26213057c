"""The verbs: what a user can do, with plain values in and files out.

The command line and `import segwright` both call these, so that both mean the same. Rooms that only one verb needs are
imported when it is called.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from segwright import runs
from segwright.augment.matching import Matching
from segwright.bundle import Bundle, load_bundle, save_bundle
from segwright.errors import DataError, OutputError, one_line
from segwright.hardware import PrecisionChoice
from segwright.metrics import Definition
from segwright.prediction.predictor import Predictor
from segwright.prediction.predictor import load as load_predictor
from segwright.recipe import override

if TYPE_CHECKING:
    from segwright.auditing.verdict import Audit
    from segwright.data.offline import Copies
    from segwright.evaluation.ensemble_weights import EnsembleFit
    from segwright.evaluation.evaluate import Evaluation
    from segwright.prediction.files import Predicted
    from segwright.recipe import Recipe
    from segwright.studies.compare import RunComparison
    from segwright.studies.estimate import Estimate
    from segwright.studies.index import Known
    from segwright.studies.leaderboard import Leaderboard
    from segwright.studies.learning_curve import Curve
    from segwright.studies.machines import Machines
    from segwright.studies.runner import Outcome
    from segwright.studies.tune import Effort
    from segwright.studies.tuned import Objective, Tuned


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

    recipe = runs.recipe_for(Path(source), start_from=_path(start_from), budget=(minutes, epochs), overrides=overrides)
    follow(recipe.training.devices)
    run = runs.new_run(Path(out), name=name, source=Path(source))
    if recipe.data.audit:
        _refuse_poison(recipe, source=Path(source), progress=progress)
    train_in_stages(recipe, run=run, start_from=_path(start_from), progress=progress)
    _score_and_report(run, progress=progress)
    return run


def audit(
    source: str | Path,
    *,
    test: str | Path | None = None,
    out: str | Path | None = None,
    fix: str | Path | None = None,
    probabilities: str | Path | None = None,
    quick: bool = False,
    weights: str | Path | None = None,
    progress: bool = True,
) -> Path:
    """Look for what is wrong with a data set, and write what was found as pages and as JSON.

    Args:
        source: images with masks, in any form that `train` takes; what could not be trained on becomes a finding.
        test: other data, for the test pictures that a model will meet.
        out: the folder of the audit; none: `audit-NAME` where one stands, or beside the data where one stands in them.
        fix: write a card there (.yaml) that reads the data as advised; pictures and masks are never touched.
        probabilities: what a model says of images that it was not trained on, to find wrong masks.
        quick: train a small model for that first, which takes minutes.
        weights: a file of an encoder that tells which pictures are unlike all others.
        progress: show how far it is.

    Returns:
        The folder, with audit.json, audit.html and examples/.

    Raises:
        SegwrightError: there is nothing to look at, or a file that is not ours would be overwritten.
    """
    from segwright.auditing import record, repair, verdict
    from segwright.reporting.audit_page import write_audit_page

    data = runs.existing(Path(source))
    other, told, encoder = (None if one is None else runs.existing(Path(one)) for one in (test, probabilities, weights))
    folder = _audit_folder(data, out=_path(out))
    record.require_ours(folder)
    if quick and told is not None:
        raise DataError("stands beside --quick, which makes such a file", mend="leave one of the two out", file=told)
    if fix is not None:
        repair.require_free(Path(fix))
    found = verdict.audit(
        data,
        test=other,
        probabilities=told,
        encoder_weights=encoder,
        progress=progress,
    )
    if quick:
        found = _with_a_models_opinion(found, folder, weights=encoder, progress=progress)
    repaired = None if fix is None else repair.write_fixed_card(found, Path(fix))
    record.write_audit(found, folder, repaired=repaired)
    write_audit_page(folder)
    return folder


def augment(
    source: str | Path,
    *,
    out: str | Path,
    count: int,
    only_classes: Sequence[str] = (),
    overrides: Mapping[str, object] | Iterable[str] = (),
    seed: int = 0,
    copies_only: bool = False,
    progress: bool = True,
) -> Copies:
    """Write augmented copies of the training images, by default with all originals as a new data set.

    Args:
        source: images with masks, in any form that `train` takes, or a recipe.
        out: a new folder.
        count: how many copies.
        only_classes: copy only images that hold one of these.
        overrides: keys of the recipe; `augment.preset` is `copies` where it is not named.
        seed: decides which images are copied and how each copy is changed.
        copies_only: leave the originals out.
        progress: show how far it is.

    Raises:
        SegwrightError: the source cannot be used, there is no image to copy, or the folder is there already.
    """
    from segwright.data.offline import Originals, write_copies
    from segwright.data.tones import tones_below
    from segwright.training.preflight import policy_of
    from segwright.training.preparation import groups_of, prepare

    data, folder = runs.existing(Path(source)), Path(out)
    if data.is_dir() and folder.resolve().is_relative_to(data.resolve()):
        raise OutputError("lies inside the data", mend="name a folder beside them with -o", file=folder)
    changes = ["augment.preset=copies", *runs.assignments(overrides), "data.working_size_px=null"]
    recipe = runs.recipe_for(data, start_from=None, budget=(None, None), overrides=changes)
    images = prepare(recipe, progress=progress)
    pack, target = images.pack, recipe.augment.match_to
    tones = None if target is None else tones_below(Path(target), channels=pack.channels, dtype=pack.dtype.name)
    return write_copies(
        Originals(pack, images.classes, images.split, groups_of(recipe, images)),
        folder,
        count=count,
        policy=policy_of(recipe.augment, channels=pack.channels, tones=tones),
        only_classes=only_classes,
        seed=seed,
        copies_only=copies_only,
        progress=progress,
    )


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
    """Train every run of a study that is not there yet.

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
    return run_study(
        read,
        folder,
        launcher=there.begin(folder),
        trials=grid.choose(grid.trials(read), rows=only, seeds=seeds),
        need=there.need,
        jobs=there.at_once,
        retry=retry,
        progress=progress,
    )


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

    name, search = searched(runs.existing(Path(source)), models=models, objectives=tuple(objectives))
    folder = _path(out) or Path("studies-runs") / name / "tune"
    if search.base.data.audit:
        _refuse_poison(search.base, source=Path(str(search.base.data.path)), progress=progress)
    console = Console(stderr=True, quiet=not progress, highlight=False)
    found = search_for(
        search, effort, out=folder, say=lambda line: console.print(one_line(line), markup=False, soft_wrap=True)
    )
    write_tune_page(folder)
    return found


def evaluate(
    run: str | Path,
    *,
    split: str | None = None,
    data: str | Path | None = None,
    device: str = "auto",
    batch_size: int = 8,
    match: Matching = "none",
    progress: bool = True,
) -> Evaluation:
    """Score a run's model and keep the scores in the run.

    Args:
        run: the folder of a run.
        split: val (when not given), test or train; with `data`, the side that the data itself names.
        data: other labelled images; all of them are scored unless `split` is given.
        device: auto, cpu, cuda ...
        batch_size: images that go through the network at once.
        match: bring the tones of every image to those of the training images; its scores get a name of their own.
        progress: show how far it is.

    Raises:
        SegwrightError: the run, its data or the split is not there.
    """
    from segwright.evaluation.evaluate import evaluate as evaluate_bundle

    folder = runs.find_run(Path(run))
    recipe = runs.recipe_of(folder)
    bundle = load_bundle(folder)
    if data is None:
        side = split or "val"
        images = runs.own_images(recipe, folder, side=side, progress=progress)
    else:
        side = runs.name_of_scores(Path(data), split=split)
        images = runs.other_images(folder, Path(data), split=split, progress=progress)
    if match != "none":
        side = f"{side}-{match}"
    return evaluate_bundle(
        bundle,
        images.pack,
        images.indices,
        split_name=side,
        out=folder,
        device=device,
        batch_size=batch_size,
        groups=images.groups,
        match=match,
        progress=progress,
    )


def ensemble(
    runs_or_bundles: Sequence[str | Path],
    *,
    out: str | Path,
    by: Literal["equal", "likelihood", "miou"] = "likelihood",
    soup: bool = False,
    device: str = "auto",
    batch_size: int = 8,
    progress: bool = True,
) -> EnsembleFit:
    """Make one bundle of several trained models, weighted by the validation images of the first run.

    Args:
        runs_or_bundles: two or more runs, of the same classes.
        out: folder of the new bundle.
        by: equal weights, or those that make the true labels likeliest, or mIoU best.
        soup: average the weights of models of one architecture, in place of what they say.
        device: auto, cpu, cuda ...
        batch_size: images at a time.
        progress: show how far it is.

    Returns:
        The weights, each model's mIoU, that of the average, and the gain with its interval.

    Raises:
        RunError: one run was trained on validation images of another, or they have other classes.
        OutputError: the bundle is there already.
    """
    from segwright.evaluation.ensemble_weights import ask, fit, of_soup
    from segwright.models import build_model
    from segwright.models.ensemble import ensemble_of, soup_of

    folders = [runs.find_run(Path(one)) for one in runs_or_bundles]
    if Path(out).exists():
        raise OutputError("is there already", mend="choose another -o", file=Path(out))
    bundles = [load_bundle(folder, device="cpu") for folder in folders]
    runs.require_comparable(folders, [bundle.classes for bundle in bundles])
    images = runs.own_images(runs.recipe_of(folders[0]), folders[0], side="val", progress=progress)
    classes, pack = bundles[0].classes, images.pack
    told = ask(bundles, pack, images.indices, batch_size=batch_size, device=device)
    found = fit(told, classes, by=by, groups=images.groups)
    models = [bundle.model.cpu() for bundle in bundles]
    model = (soup_of if soup else ensemble_of)(models, weights=found.weights, build=build_model)
    if soup:
        one = Bundle(model.eval(), classes, {})
        found = of_soup(
            found,
            ask([one], pack, images.indices, batch_size=batch_size, device=device),
            told,
            classes,
            groups=images.groups,
        )
    first = bundles[0].info
    licences = list(dict.fromkeys(line for bundle in bundles for line in bundle.info["licences"]))
    value = {"name": "miou", "split": "val", "value": found.together, "interval": None}
    members = [str(folder) for folder in folders]
    info = {**first, "score": value, "licences": licences, "members": members, "weights": list(found.weights)}
    save_bundle(Path(out), model.cpu(), classes=classes, info=info)
    return found


def predict(
    run: str | Path,
    source: str | Path,
    *,
    out: str | Path,
    overlays: bool = False,
    device: str = "auto",
    precision: PrecisionChoice = "auto",
    batch_size: int = 8,
    match: Matching = "none",
) -> Predicted:
    """Write the mask of every image of a source; see `segwright.prediction.files`.

    Args:
        run: the folder of a run or of a bundle.
        source: a picture, a folder of pictures, or a file of arrays.
        out: the folder of the masks.
        overlays: also write pictures of the image with its mask on top.
        device: auto, cpu, cuda ...
        precision: auto takes the fastest that is safe.
        batch_size: images that go through the network at once.
        match: bring the tones of every image to those of the training images first: by mean and deviation (moments), or
            by the whole histogram.

    Raises:
        SegwrightError: the model or the images are not there, or a file that is not ours would be overwritten.
    """
    from segwright.prediction.files import predict_files

    predictor = load(run, device=device, precision=precision, batch_size=batch_size, match=match)
    return predict_files(predictor, runs.existing(Path(source)), out=Path(out), overlays=overlays)


def report(run: str | Path, *, out: str | Path | None = None) -> Path:
    """Write the report of a run from what stands on disk, as one HTML file.

    Raises:
        RunError: there is no such run.
    """
    from segwright.reporting.page import write_report

    return write_report(runs.find_run(Path(run)), out=_path(out))


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


def load(
    run: str | Path,
    *,
    device: str = "auto",
    precision: PrecisionChoice = "auto",
    batch_size: int = 8,
    match: Matching = "none",
) -> Predictor:
    """The model of a run or of a bundle, ready to predict; see `Predictor` for `match`.

    Raises:
        RunError: there is no bundle, or it is damaged.
        WeightsError: its weights do not fit.
    """
    return load_predictor(Path(run), device=device, precision=precision, batch_size=batch_size, match=match)


def _audit_folder(data: Path, *, out: Path | None) -> Path:
    """Where an audit goes: never into the data, for its pictures would be taken for some of them.

    Raises:
        OutputError: the folder lies inside the data.
    """
    folder = Path(f"audit-{runs.stem_of(data)}") if out is None else out
    if not data.is_dir() or not folder.resolve().is_relative_to(data.resolve()):
        return folder
    if out is None:
        return data.resolve().parent / folder.name
    raise OutputError("lies inside the data", mend="name a folder beside them with -o", file=folder)


def _with_a_models_opinion(found: Audit, folder: Path, *, weights: Path | None, progress: bool) -> Audit:
    """The audit with what a small model says that is trained, by parts, on what is left of the data."""
    from segwright.auditing import quick, record, repair, verdict

    # What was found so far is kept, should the training be stopped.
    record.write_audit(found, folder)
    card = repair.write_fixed_card(found, folder / "quick.yaml").card
    told = quick.out_of_fold(card, folder / "probabilities.npz", weights=weights, progress=progress)
    return verdict.with_probabilities(found, told)


def _refuse_poison(recipe: Recipe, *, source: Path, progress: bool) -> None:
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
    evaluate(run, progress=progress)
    report(run)


def _path(value: str | Path | None) -> Path | None:
    return None if value is None else Path(value)
