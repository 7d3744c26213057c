"""The verbs: what a user can do, with plain values in and files out.

The command line and `import segwright` both call these, so that both mean the same. Rooms that only one verb needs are
imported when it is called.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from segwright import runs
from segwright.bundle import load_bundle
from segwright.hardware import PrecisionChoice
from segwright.prediction.predictor import Predictor
from segwright.prediction.predictor import load as load_predictor

if TYPE_CHECKING:
    from segwright.evaluation.evaluate import Evaluation
    from segwright.prediction.files import Predicted


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
    from segwright.training.run import train as train_run

    recipe = runs.recipe_for(Path(source), start_from=_path(start_from), budget=(minutes, epochs), overrides=overrides)
    run = runs.new_run(Path(out), name=name, source=Path(source))
    train_run(recipe, run=run, start_from=_path(start_from), progress=progress)
    _score_and_report(run, progress=progress)
    return run


def resume(run: str | Path, *, progress: bool = True) -> Path:
    """Go on with a run that was stopped, with its own recipe, as if it had never been stopped.

    Raises:
        RunError: there is no such run, it cannot be resumed, or it is being written to.
    """
    from segwright.training.run import train as train_run

    folder = runs.find_run(Path(run))
    train_run(runs.recipe_of(folder), run=folder, resume=True, progress=progress)
    _score_and_report(folder, progress=progress)
    return folder


def evaluate(
    run: str | Path,
    *,
    split: str | None = None,
    data: str | Path | None = None,
    device: str = "auto",
    batch_size: int = 8,
    progress: bool = True,
) -> Evaluation:
    """Score a run's model and keep the scores in the run.

    Args:
        run: the folder of a run.
        split: val (when not given), test or train; with `data`, the side that the data itself names.
        data: other labelled images; all of them are scored unless `split` is given.
        device: auto, cpu, cuda ...
        batch_size: images that go through the network at once.
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
    return evaluate_bundle(
        bundle,
        images.pack,
        images.indices,
        split_name=side,
        out=folder,
        device=device,
        batch_size=batch_size,
        groups=images.groups,
        progress=progress,
    )


def predict(
    run: str | Path,
    source: str | Path,
    *,
    out: str | Path,
    overlays: bool = False,
    device: str = "auto",
    precision: PrecisionChoice = "auto",
    batch_size: int = 8,
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

    Raises:
        SegwrightError: the model or the images are not there, or a file that is not ours would be overwritten.
    """
    from segwright.prediction.files import predict_files

    predictor = load(run, device=device, precision=precision, batch_size=batch_size)
    return predict_files(predictor, runs.existing(Path(source)), out=Path(out), overlays=overlays)


def report(run: str | Path, *, out: str | Path | None = None) -> Path:
    """Write the report of a run from what stands on disk, as one HTML file.

    Raises:
        RunError: there is no such run.
    """
    from segwright.reporting.page import write_report

    return write_report(runs.find_run(Path(run)), out=_path(out))


def load(
    run: str | Path, *, device: str = "auto", precision: PrecisionChoice = "auto", batch_size: int = 8
) -> Predictor:
    """The model of a run or of a bundle, ready to predict.

    Raises:
        RunError: there is no bundle, or it is damaged.
        WeightsError: its weights do not fit.
    """
    return load_predictor(Path(run), device=device, precision=precision, batch_size=batch_size)


def _score_and_report(run: Path, *, progress: bool) -> None:
    evaluate(run, progress=progress)
    report(run)


def _path(value: str | Path | None) -> Path | None:
    return None if value is None else Path(value)
