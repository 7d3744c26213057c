"""Verbs of trained models: score them, join them, use them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from segwright import run_images, runs
from segwright.augment.matching import Matching
from segwright.bundle import INDEX_FILE, Bundle, load_bundle, save_bundle
from segwright.data.tiles import TILE_PX
from segwright.errors import OutputError, RecipeError, RunError
from segwright.hardware import PrecisionChoice
from segwright.prediction.predictor import Predictor
from segwright.prediction.predictor import load as load_predictor
from segwright.prediction.tta import Flips

if TYPE_CHECKING:
    from segwright.evaluation.ensemble_weights import EnsembleFit
    from segwright.evaluation.evaluate import Evaluation
    from segwright.metrics import Definition
    from segwright.prediction.files import Predicted
    from segwright.prediction.submission import AskedCsvForm
    from segwright.recipe import Recipe
    from segwright.run_images import LabelledImages


def evaluate(
    run: str | Path,
    *,
    split: str | None = None,
    data: str | Path | None = None,
    device: str = "auto",
    batch_size: int = 8,
    match: Matching = "none",
    flips: Flips = "none",
    score_as: Definition = "declared",
    loss: bool = False,
    progress: bool = True,
) -> Evaluation:
    """Score the model of a run, or an average of runs, and keep the scores in its folder.

    Args:
        run: the folder of a run, or of a bundle that `ensemble` made, which is judged by the images of its first run.
        split: val (when not given), test or train; with `data`, the side that the data itself names.
        data: other labelled images; all of them are scored unless `split` is given.
        device: auto, cpu, cuda ...
        batch_size: images that go through the network at once.
        match: bring the tones of every image to those of the training images; its scores get a name of their own.
        flips: average over mirrored (horizontal, both) and turned copies (all); these scores too get their own name.
        score_as: the definition of the result's `miou`. What is written holds every definition, whichever this is.
        loss: also compute the loss of these images, as training does of its validation images, so of the plain answers
            alone; an average is judged by the loss of its first run.
        progress: show how far it is.

    Raises:
        RecipeError: the definition sets classes apart, and the run names none; or a loss is asked for with another way
            to predict.
        RunError: a run of an average has learnt from the images, or its weights were fitted on them.
        SegwrightError: the run, its data or the split is not there.
    """
    from segwright.evaluation.evaluate import evaluate as evaluate_bundle
    from segwright.evaluation.summary import require_set_apart

    if loss and (match, flips) != ("none", "none"):
        raise RecipeError("the loss is that of the plain answers", mend="ask for it without --match and --flips")
    folder = Path(run)
    members = _members_of(folder)
    first = members[0] if members else runs.find_run(folder)
    recipe = runs.recipe_of(first)
    bundle = load_bundle(folder)
    require_set_apart(bundle.classes, score_as, run=folder)

    def images_at(working_size_px: int | None) -> LabelledImages:
        size: dict[str, Any] = {"working_size_px": working_size_px, "progress": progress}
        if data is None:
            return run_images.own_images(recipe, first, side=split or "val", **size)
        return run_images.other_images(first, Path(data), split=split, **size)

    if data is None:
        side = split or "val"
        run_images.require_unseen(folder, members, bundle.info, side=side)
    else:
        side = run_images.name_of_scores(Path(data), split=split)
    images = images_at(None)
    working_size_px = recipe.data.working_size_px
    lost = _loss_on(images_at(working_size_px), bundle, first, recipe, device=device) if loss else None
    side = "-".join([side, *(way for way in (match, flips) if way != "none")])
    result = evaluate_bundle(
        bundle,
        images.pack,
        images.indices,
        split_name=side,
        out=folder,
        device=device,
        batch_size=batch_size,
        groups=images.groups,
        match=match,
        flips=flips,
        loss=lost,
        progress=progress,
    )
    return replace(result, score_as=score_as)


def _loss_on(images: LabelledImages, bundle: Bundle, run: Path, recipe: Recipe, *, device: str) -> float:
    """The loss of a run's recipe on images, with class weights from the images that the run has learnt from."""
    from segwright.evaluation.loss import mean_loss
    from segwright.training.objective import loss_of

    learnt = run_images.own_images(recipe, run, side="train", progress=False)
    heads = bundle.model.heads
    loss = loss_of(
        recipe.loss if heads else recipe.loss.model_copy(update={"heads": ()}),
        classes=bundle.classes,
        class_pixels=learnt.pack.class_pixels[learnt.indices],
        heads=heads,
    )
    batch_size = recipe.training.batch_size
    return mean_loss(bundle, images.pack, images.indices, loss=loss, batch_size=batch_size, device=device)


def _members_of(folder: Path) -> list[Path]:
    """The runs that an average was made of; none where the folder is something else."""
    if (folder / "recipe.yaml").is_file() or not (folder / INDEX_FILE).is_file():
        return []
    return [runs.find_run(Path(run)) for run in load_bundle(folder).info.get("members", ())]


def ensemble(
    runs_or_bundles: Sequence[str | Path],
    *,
    out: str | Path,
    by: Literal["equal", "likelihood", "miou"] = "likelihood",
    soup: bool = False,
    device: str = "auto",
    batch_size: int = 8,
    progress: bool = True,
) -> EnsembleFit | None:
    """Make one bundle of several trained models, weighted by the validation images of the first run.

    Refits, which have learnt from their validation images, can only be averaged alike, and nothing judges the average.

    Args:
        runs_or_bundles: two or more runs, of the same classes.
        out: folder of the new bundle.
        by: equal weights, or those that make the true labels likeliest, or mIoU best.
        soup: average the weights of models of one architecture, in place of what they say.
        device: auto, cpu, cuda ...
        batch_size: images at a time.
        progress: show how far it is.

    Returns:
        The weights, each model's mIoU, that of the average or the soup, and the gain with its interval. What is said
        of the average or the soup is said of images that its weights were not fitted on: each half of the images is
        answered with the weights of the other half. The bundle has the weights of all. None of refits.

    Raises:
        RunError: one run was trained on validation images of another, a refit's weight is to be fitted, or they have
            other classes or working sizes.
        OutputError: the bundle is there already.
    """
    from segwright.evaluation.ensemble_weights import Answers, ask, fit, working_size_of
    from segwright.models import build_model
    from segwright.models.ensemble import ensemble_of, soup_of

    folders = [runs.find_run(Path(one)) for one in runs_or_bundles]
    if Path(out).exists():
        raise OutputError("is there already", mend="choose another -o", file=Path(out))
    bundles = [load_bundle(folder, device="cpu") for folder in folders]
    judged = by != "equal" or soup or not any(_is_refit(folder) for folder in folders)
    run_images.require_comparable(folders, [bundle.classes for bundle in bundles], judged=judged)
    sizes = [working_size_of(bundle) for bundle in bundles]
    for folder, size in zip(folders, sizes, strict=True):
        if size != sizes[0]:
            problem = f"was trained with data.working_size_px {size}, and {folders[0]} with {sizes[0]}"
            raise RunError(problem, mend="average runs of one working size", file=folder)
    licences = list(dict.fromkeys(line for bundle in bundles for line in bundle.info["licences"]))
    info = {**bundles[0].info, "members": [str(folder.resolve()) for folder in folders], "licences": licences}
    models = [bundle.model.cpu() for bundle in bundles]
    if not judged:
        alike = [1 / len(models)] * len(models)
        info |= {"weights": alike, "averaged": "answers", "score": None, "note": _NOTE_OF_REFITS}
        together = ensemble_of(models, weights=alike, build=build_model)
        save_bundle(Path(out), together, classes=bundles[0].classes, info=info)
        return None
    images = run_images.own_images(runs.recipe_of(folders[0]), folders[0], side="val", progress=progress)
    classes, pack = bundles[0].classes, images.pack
    told = ask(bundles, pack, images.indices, batch_size=batch_size, device=device)
    for model in models:
        model.cpu()  # asking took them to the device

    def soup_says(weights: Sequence[float], positions: Sequence[int]) -> Answers:
        one = Bundle(soup_of(models, weights=weights, build=build_model).eval(), classes, bundles[0].info)
        return ask([one], pack, positions, batch_size=batch_size, device=device, share=told.share)

    found = fit(told, classes, by=by, groups=images.groups, soup=soup_says if soup else None)
    together = (soup_of if soup else ensemble_of)(models, weights=found.weights, build=build_model)
    value = {"name": "miou", "split": "val", "value": found.together, "interval": None}
    if by != "equal":
        value["scored_with"] = "weights fitted on the other half of the images"
    info |= {"weights": list(found.weights), "averaged": "weights" if soup else "answers", "score": value}
    save_bundle(Path(out), together.cpu(), classes=classes, info=info)
    return found


_NOTE_OF_REFITS = "members have learnt from their validation images too, so the average has no score of its own"


def _is_refit(run: Path) -> bool:
    return runs.recipe_of(run).data.split.refit is not None


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
    flips: Flips = "none",
    tile_px: int = TILE_PX,
    key: str | None = None,
    csv: AskedCsvForm = "auto",
) -> Predicted:
    """Write the mask of every image of a source; see `segwright.prediction.files`.

    Args:
        run: the folder of a run or of a bundle.
        source: a picture, a folder of pictures, or a file of arrays.
        out: the folder of the masks; or a .png, an .npz, or a .csv for a submission.
        overlays: also write pictures of the image with its mask on top.
        device: auto, cpu, cuda ...
        precision: auto takes the fastest that is safe.
        batch_size: images that go through the network at once.
        match: bring the tones of every image to those of the training images first: by mean and deviation (moments), or
            by the whole histogram.
        flips: average over the image and its mirror image (horizontal), also upside down (both), also with quarter
            turns (all); takes 2, 4 or 8 times as long.
        tile_px: side of the tiles of images of more than 4 megapixels; smaller ones take less memory.
        key: the array to predict in a file of several; else those without masks are taken, where there are any.
        csv: labels (a column a pixel) or runs (run lengths); auto takes labels for small images of one size.

    Raises:
        SegwrightError: the model or the images are not there, or a file that is not ours would be overwritten.
    """
    from segwright.prediction.files import predict_files

    predictor = load(
        run, device=device, precision=precision, batch_size=batch_size, tile_px=tile_px, match=match, flips=flips
    )
    data = runs.existing(Path(source))
    return predict_files(predictor, data, out=Path(out), overlays=overlays, key=key, csv=csv)


def load(
    run: str | Path,
    *,
    device: str = "auto",
    precision: PrecisionChoice = "auto",
    batch_size: int = 8,
    tile_px: int | None = TILE_PX,
    match: Matching = "none",
    flips: Flips = "none",
) -> Predictor:
    """The model of a run or of a bundle, ready to predict; see `Predictor` for `tile_px`, `match` and `flips`.

    Raises:
        RecipeError: tiles are too small, or something else is not as it has to be.
        RunError: there is no bundle, or it is damaged.
        WeightsError: its weights do not fit.
    """
    return load_predictor(
        Path(run), device=device, precision=precision, batch_size=batch_size, tile_px=tile_px, match=match, flips=flips
    )
