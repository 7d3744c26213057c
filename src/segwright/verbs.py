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
