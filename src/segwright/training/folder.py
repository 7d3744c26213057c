"""What a run folder holds beside its weights: what it starts with, and what stands in its bundle."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from segwright.bundle import INDEX_FILE, load_bundle, save_bundle
from segwright.data.card import write_card
from segwright.data.sources import Source
from segwright.data.splits import write_split
from segwright.data.tones import pack_reference
from segwright.errors import OutputError, RunError
from segwright.files import read_json, sync_folder, write_json
from segwright.hardware import describe
from segwright.recipe import Recipe, budget_text, write_recipe
from segwright.training.assembly import Start, averaging_of
from segwright.training.module import SegmentationModule
from segwright.training.preparation import Prepared
from segwright.training.resuming import write_images
from segwright.types import SPLIT_NAMES, ClassSet


def run_file(run: Path, name: str) -> Path:
    """A file that a run was started with.

    Raises:
        RunError: it is missing.
    """
    path = run / name
    if not path.is_file():
        raise RunError(f"has no {name}, so there is nothing to resume", mend="start the run again", file=run)
    return path


def write_beginnings(
    run: Path, start: Start, images: Prepared, *, device: torch.device, start_from: Path | None
) -> None:
    """Make the folder of a new run, with all that says what is to be trained: whole, or not at all.

    Raises:
        RunError: the folder is there already.
        OutputError: it cannot be made.
    """
    try:
        run.parent.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(dir=run.parent, prefix=f".{run.name}.", suffix=".part"))
    except OSError as error:
        raise OutputError(f"cannot be made ({error.strerror})", mend="choose another --out", file=run) from None
    try:
        _write_files(fresh, start, images, device=device, start_from=start_from)
        fresh.chmod(0o755)
        if run.exists():
            raise RunError("this run exists already", mend="choose another --name", file=run)
        fresh.rename(run)
        sync_folder(run.parent)
    except OSError as error:
        raise OutputError(f"cannot be made ({error.strerror})", mend="choose another --out", file=run) from None
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _write_files(run: Path, start: Start, images: Prepared, *, device: torch.device, start_from: Path | None) -> None:
    write_recipe(run / "recipe.yaml", start.recipe)
    write_card(run / "data.yaml", {**images.source.as_card(), "dropped": {**images.source.dropped, **images.dropped}})
    write_division(run, images)
    report = start.report
    facts = {
        "data_digest": images.pack.digest,
        "seed": start.recipe.training.seed,
        "start_from": None if start_from is None else str(start_from.resolve()),
        "weights": report
        and {"source": report.source, "matched": report.matched, "missing": report.missing, "licence": report.licence},
        "licences_of_branches": list(start.licences),
        "licences_of_start": [] if start_from is None else load_bundle(start_from).info["licences"],
    }
    write_json(run / "environment.json", {**facts, **describe(device)})


def write_division(run: Path, images: Prepared) -> None:
    """Which images stand on which side, and what they look like."""
    write_split(run / "split.json", images.split)
    write_images(run, images.pack, images.split)


def take_changes(run: Path, start: Start, images: Prepared) -> None:
    """Make changes of the recipe or of the images, which were accepted, those of the run."""
    write_recipe(run / "recipe.yaml", start.recipe)
    if images.changes:
        write_division(run, images)
        facts = read_json(run / "environment.json")
        write_json(run / "environment.json", {**facts, "data_digest": images.pack.digest})


def opening(start: Start, images: Prepared, *, where: str) -> list[str]:
    """What a run says before its first epoch."""
    recipe = start.recipe
    sides = ", ".join(f"{len(images.indices(side))} {side}" for side in SPLIT_NAMES if len(images.indices(side)))
    millions = sum(p.numel() for p in start.model.parameters()) / 1e6
    name = recipe.model.name + (f"/{start.model.spec.encoder}" if start.model.spec.encoder else "")
    lines = [
        f"images   {sides}" + (f", {len(images.dropped)} dropped" if images.dropped else ""),
        f"classes  {', '.join(images.classes.names)}",
        f"model    {name}, {millions:.2f} M parameters, {start.note}",
        *([f"licence  of the weights: {start.report.licence}"] if start.report is not None else []),
        f"average  {averaging_of(recipe)}",
        f"budget   {budget_text(recipe.training)}, batches of {recipe.training.batch_size} on {where}",
    ]
    return [*lines, *(f"note     {note}" for note in (*images.source.notes, *images.pack.notes, *images.notes))]


def other_versions(run: Path) -> list[str]:
    """What is installed now, where it is not what the run was started with: numbers may differ in their last digits."""
    before, now = read_json(run / "environment.json")["versions"], describe(torch.device("cpu"))["versions"]
    names = [name for name, version in now.items() if before.get(name) != version]
    return [f"note     {name} was {before.get(name)} when the run was started, now it is {now[name]}" for name in names]


def saver(
    run: Path, module: SegmentationModule, images: Prepared, recipe: Recipe, *, keep_better: bool
) -> Callable[[dict[str, Any]], None]:
    """A function that keeps the best model so far.

    Args:
        run: the run folder.
        module: holds the model.
        images: of the run.
        recipe: of the run.
        keep_better: a bundle that stands there may be of a later epoch than the state that the run goes on from; it is
            only replaced by a better one.
    """
    facts = read_json(run / "environment.json")
    weights = facts["weights"]
    licences = [] if weights is None else [f"{weights['source']}: {weights['licence']}"]
    licences += facts.get("licences_of_branches", [])
    licences += facts.get("licences_of_start", [])
    standing = _score_of(run / "bundle") if keep_better else None
    tones = np.round(pack_reference(images.pack, images.indices("train")), _DIGITS[images.pack.dtype.kind]).tolist()

    after = recipe.data.split.refit
    note = {} if after is None else {"note": _note_of_refit(Path(after))}

    def save(row: dict[str, Any]) -> None:
        if standing is not None and row["val_miou"] <= standing:
            return
        info = {
            "score": None if note else {"name": "miou", "split": "val", "value": row["val_miou"], "interval": None},
            **note,
            "definition": _definition(images.classes),
            "calibration": None,
            "epoch": row["epoch"],
            "mask_values": _mask_values(images.source),
            "input": {"working_size_px": recipe.data.working_size_px, "tones": tones},
            "trained_on": {
                "path": recipe.data.path,
                "digest": images.pack.digest,
                "images": len(images.indices("train")),
            },
            "licences": licences,
            "versions": facts["versions"],
        }
        save_bundle(run / "bundle", module.best, classes=images.classes, info=info)

    return save


def _note_of_refit(after: Path) -> str:
    """Why a refit has no score, and what the run scored that it is trained again of, where that is still there."""
    file = after / "scores" / "val.json"
    said = f"trained on its validation images too, as {after.name} was without them, so it has no score of its own"
    told = read_json(file)["definitions"]["declared"]["miou"] if file.is_file() else {"estimate": None}
    if told["estimate"] is None:
        return said
    between = "" if told["low"] is None else f" ({told['low']:.3f} to {told['high']:.3f})"
    return f"{said}; {after.name} scored mIoU {told['estimate']:.3f}{between} on them"


def _mask_values(source: Source) -> list[int] | None:
    """What stands for each class in a submission file; None where masks hold colours."""
    values = source.values_to_submit
    return None if values is None else [int(value) for value in values]


_DIGITS = {"u": 2, "f": 6}
"""Digits of the tones that are kept: bytes need few, floats may be shares."""


def _score_of(bundle: Path) -> float | None:
    if not (bundle / INDEX_FILE).is_file():
        return None
    score = read_json(bundle / INDEX_FILE)["info"]["score"] or {}
    value = score.get("in_training", score.get("value"))
    return None if value is None else float(value)


def _definition(classes: ClassSet) -> str:
    out = [classes.names[k] for k in (*classes.ignore_in_score, *classes.leave_out_of_mean)]
    return f"mean IoU over all classes{' but ' if out else ''}{', '.join(out)}, from summed counts"
