"""Who may teach whom: the run whose images pseudo-labelled ones join, and the recipe of the student.

The student is validated and tested on the images of that run, with the labels that people gave. So neither that run nor
the teacher may have learnt from them: what a teacher has seen, it hands on by its labels.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from segwright import runs
from segwright.bundle import INDEX_FILE, find_bundle, load_bundle
from segwright.data.card import GROUP_SUFFIXES
from segwright.data.new_set import Originals
from segwright.data.pack import open_pack
from segwright.data.splits import find_groups, read_split
from segwright.errors import RunError, SplitError
from segwright.files import read_json
from segwright.recipe import ClassesRecipe, Recipe, SplitRecipe
from segwright.run_images import IMAGES_FILE, keeps_sides, refuse_leak, source_of
from segwright.training.preparation import Prepared, groups_of
from segwright.types import Sample


def run_to_join(teacher: Path, *, join: Path | None) -> tuple[Path, tuple[str, ...]]:
    """The run whose images the pseudo-labelled ones are written beside; no model is loaded for it.

    Args:
        teacher: the folder of a run or of a bundle.
        join: the run that is asked for; None: the teacher's own, or the first of an ensemble.

    Returns:
        The run, and in sentences what is not known of the images that the teacher has learnt from.

    Raises:
        RunError: there is none, or it is judged by images that it or the teacher has learnt from.
    """
    info = _info(teacher)
    members = [Path(str(member)) for member in info.get("members") or ()]
    around = [teacher, teacher.parent] if teacher.name == "bundle" else [teacher]
    own = [one for one in around if (one / "recipe.yaml").is_file()]
    found = [*own, *(one for one in members if (one / "recipe.yaml").is_file())]
    if join is None and not found:
        mend = "name the run whose images these join with --join"
        raise RunError("is a bundle outside of a run, so its own images are not known", mend=mend, file=teacher)
    run = runs.find_run(found[0] if join is None else join)
    _require_judged(run, asked=join is not None)
    learners = [*own, *members] or [teacher]
    for one in learners:
        if one in found and keeps_sides(one):
            refuse_leak(one, run, sides=("val", "test"))
    unknown = [one for one in learners if one not in found or not keeps_sides(one)]
    return run, tuple(_of_unknown(one, run) for one in unknown)


def _require_judged(run: Path, *, asked: bool) -> None:
    """A student must be judged by images that the run did not learn from.

    Raises:
        RunError: it learnt from them, or does not tell.
    """
    after = runs.recipe_of(run).data.split.refit
    if after is not None:
        what = "has learnt from its validation images, so a student could not be validated"
        mend = f"join {after}, which it is a refit of" if asked else f"let {after} teach, which it is a refit of"
        raise RunError(what, mend=mend, file=run)
    if not (run / IMAGES_FILE).is_file():
        problem = f"has no {IMAGES_FILE}, so nothing tells whether the teacher has learnt from what it is judged by"
        raise RunError(problem, mend="join another run (--join), or train this one anew", file=run)


def _of_unknown(learner: Path, run: Path) -> str:
    """What is to be said of a teacher, or a member of one, whose images are not known.

    Raises:
        RunError: it is a refit, which has learnt from the validation images of some run.
    """
    info = _info(learner) if learner.is_dir() else {}
    if info.get("score") is None and info.get("note"):
        mend = "give the folder of its run in place of the bundle, or let a model teach that is no refit"
        raise RunError(f"is a refit, so it may have learnt from what {run} is judged by", mend=mend, file=learner)
    return f"nothing tells which images {learner} has learnt from; if {run} is judged by some, the scores will flatter"


def _info(folder: Path) -> dict[str, Any]:
    """What a bundle keeps of its model; where it is damaged, loading it will say so."""
    tree = read_json(find_bundle(folder) / INDEX_FILE)
    info = tree.get("info") if isinstance(tree, dict) else None
    return info if isinstance(info, dict) else {}


def originals_of(
    run: Path, recipe: Recipe, *, taught: tuple[str, ...]
) -> tuple[Originals, Callable[[Sample], str | None]]:
    """The images of a run, at their own size, on the sides where it has them; and what finds the group of new ones.

    Args:
        run: its folder.
        recipe: of the run.
        taught: names of the teacher's classes.

    Raises:
        RunError: the run has other classes.
        SplitError: images of the run are no longer there.
    """
    classes = load_bundle(run).classes
    if classes.names != taught:
        problem = f"the model has the classes {', '.join(taught)}, the run {', '.join(classes.names)}"
        raise RunError(problem, mend="take a model and a run of the same classes", file=run)
    source = source_of(recipe)
    pack = open_pack(source, resident=recipe.data.resident)
    split = read_split(run / "split.json", pack.ids)
    groups = groups_of(recipe, Prepared(source, pack, classes, split, {}))
    expression = recipe.data.split.groups or source.groups
    return Originals(pack, classes, split, groups, source.values_to_submit), lambda sample: _group(sample, expression)


def _group(sample: Sample, expression: str | None) -> str | None:
    """The group that an image names itself, or that the run's expression finds in its id."""
    if sample.group is not None or expression is None or expression.endswith(GROUP_SUFFIXES):
        return sample.group
    try:
        return find_groups([sample.id], expression)[0]
    except SplitError:
        return None


def student_recipe(recipe: Recipe, card: Path) -> Recipe:
    """The recipe of a run, on data whose card tells their classes, coding and sides."""
    usual = ClassesRecipe().model_dump(include={"names", "colors", "mask_values", "void_values"})
    data = recipe.data.model_copy(update={"path": str(card), "format": "auto", "drop": (), "split": SplitRecipe()})
    return recipe.model_copy(update={"data": data, "classes": recipe.classes.model_copy(update=usual)})
