"""The verb of a teacher: its labels of unlabelled images, for a student to learn from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from segwright import runs
from segwright.errors import OutputError
from segwright.recipe import write_recipe

if TYPE_CHECKING:
    from segwright.data.pseudo_set import PseudoSet


def pseudo(
    teacher: str | Path,
    images: str | Path,
    *,
    out: str | Path,
    confidence: float = 0.9,
    least_share: float = 0.5,
    key: str | None = None,
    join: str | Path | None = None,
    device: str = "auto",
) -> PseudoSet:
    """Let a model label images, and write them beside the labelled images of its run as a new data set.

    Args:
        teacher: the folder of a run or of a bundle.
        images: a picture, a folder of pictures, or a file of arrays.
        out: a new folder; its `recipe.yaml` is that of the run, on the new data.
        confidence: pixels whose likeliest class has a smaller probability are void.
        least_share: images of which the model is sure of less than this share of the pixels are left out.
        key: the array to label in a file of several; else those without masks are taken, where there are any.
        join: the run whose images these join; none: the teacher's own, or the first of an ensemble.
        device: auto, cpu, cuda ...

    Raises:
        SplitError: a picture stands on the run's validation or test side.
        RunError: there is no such run, or it is judged by images that it or the teacher has learnt from.
        SegwrightError: the images cannot be used, none could be labelled, or the folder is there already.
    """
    from segwright.data.pseudo_set import write_pseudo_set
    from segwright.prediction.choosing import open_images
    from segwright.prediction.predictor import load
    from segwright.prediction.pseudo import candidates, pseudo_labels
    from segwright.training.refit import origin_of
    from segwright.training.teaching import originals_of, run_to_join, student_recipe

    data, folder = runs.existing(Path(images)), Path(out)
    if data.is_dir() and folder.resolve().is_relative_to(data.resolve()):
        raise OutputError("lies inside the images", mend="name a folder beside them with -o", file=folder)
    if folder.exists():
        raise OutputError("is there already", mend="name a new folder", file=folder)
    run, notes = run_to_join(Path(teacher), join=None if join is None else Path(join))
    recipe = runs.recipe_of(run)
    predictor = load(Path(teacher), device=device)
    originals, group_of = originals_of(run, recipe, taught=predictor.classes.names)
    found = candidates(open_images(data, key=key), originals, group_of=group_of)
    done = write_pseudo_set(
        originals,
        pseudo_labels(predictor, found, confidence=confidence),
        folder,
        model=str(teacher),
        expected=len(found.samples),
        left_out=found.left_out,
        least_share=least_share,
    )
    write_recipe(folder / "recipe.yaml", student_recipe(recipe, done.card.resolve()))
    return replace(done, notes=notes, start_from=origin_of(run, recipe))
