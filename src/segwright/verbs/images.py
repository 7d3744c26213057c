"""Verbs of images: what is wrong with them and their masks, and augmented copies of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from segwright import runs
from segwright.errors import DataError, OutputError

if TYPE_CHECKING:
    from segwright.auditing.verdict import Audit
    from segwright.data.offline import Copies


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
    folder = _audit_folder(data, out=None if out is None else Path(out))
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
        only_classes: copy only images that hold one of these; `augment.only_classes` of a recipe where none is named.
        overrides: keys of the recipe; `augment.preset` is `copies` where it is not named.
        seed: decides which images are copied and how each copy is changed.
        copies_only: leave the originals out.
        progress: show how far it is.

    Raises:
        SegwrightError: the source cannot be used, there is no image to copy, or the folder is there already.
    """
    from segwright.data.new_set import Originals
    from segwright.data.offline import write_copies
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
        Originals(pack, images.classes, images.split, groups_of(recipe, images), images.source.values_to_submit),
        folder,
        count=count,
        policy=policy_of(recipe.augment, channels=pack.channels, tones=tones),
        only_classes=only_classes or recipe.augment.only_classes,
        seed=seed,
        copies_only=copies_only,
        progress=progress,
    )


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
