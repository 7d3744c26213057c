"""Predict files: a picture, a folder of pictures or a file of arrays in; masks and a table in JSON lines out.

A mask of a picture is an indexed PNG of the picture's name and size, whose palette shows the class colours. Arrays give
an npz of `masks` (N, H, W) and `ids`. Both may become one CSV, see `submission`. Beside them stands the table of
predictions.

Nothing of the user's is overwritten: a file may be replaced only where the table of an earlier run lists it with the
digest that it still has.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np

from segwright.data.sources import Source
from segwright.data.sources.folder import takes_for_mask
from segwright.data.tiles import TILE_PX, is_large
from segwright.errors import DataError, OutputError, SegwrightError
from segwright.files import atomic, digest, real, write_arrays, write_mask
from segwright.models import ModelSpec
from segwright.pictures import overlay, to_png
from segwright.prediction.choosing import open_images, sizes_of, submission_names
from segwright.prediction.fitting import fit_small, scale_down
from segwright.prediction.predictor import Prediction, Predictor
from segwright.prediction.submission import AskedCsvForm, CsvForm, form_for, stored_values, write_submission
from segwright.prediction.table import PredictionTable, refuse_foreign
from segwright.types import ImageArray, MaskArray, Sample

TABLE = "predictions.jsonl"
OVERLAYS = "overlays"
OVERLAY_ALPHA = 0.5
LARGEST_OVERLAY_PX = 2048
"""Overlays of large images are for looking at: their longer side is scaled down to this."""


@dataclass(frozen=True)
class Predicted:
    """What was done.

    Attributes:
        masks: the folder, or the npz or CSV, that holds the masks.
        table: the JSON lines.
        images: how many images were predicted.
        failed: why an image was left out, by name.
        notes: what of the source was left aside, in sentences.
        seconds: from the first image read to the last mask written.
    """

    masks: Path
    table: Path
    images: int
    failed: dict[str, str]
    seconds: float
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Plan:
    """Where everything goes, known before the first image is read."""

    kind: Literal["files", "arrays", "csv"]
    root: Path
    table: Path
    masks: tuple[Path, ...]
    overlays: tuple[Path, ...]


def predict_files(
    predictor: Predictor,
    source: Path,
    *,
    out: Path,
    overlays: bool = False,
    key: str | None = None,
    csv: AskedCsvForm = "auto",
) -> Predicted:
    """Predict every image of a source.

    Args:
        predictor: the model in use.
        source: a picture, a folder, an npz or npy of images, or anything else that can be trained on.
        out: the folder of the masks; or a `.png` for one picture, an `.npz` for arrays, a `.csv` for a submission.
        overlays: also write pictures of the image with its mask on top, under `overlays/`.
        key: the array to predict in a file of several; see `choosing.open_images`.
        csv: the form of a `.csv`; see `submission`.

    Raises:
        DataError: the source holds no images. A single damaged image is left out and named in the result.
        OutputError: writing would touch the source folder or a file that segwright did not write, or a CSV cannot hold
            the masks in that form.
    """
    started = time.perf_counter()
    opened = open_images(source, key=key)
    samples, notes = opened.samples, opened.notes
    plan = _plan(source, opened, out=out, overlays=overlays)
    if plan.kind != "csv" and csv != "auto":
        raise OutputError(f"is no CSV that could hold {csv}", mend="name a file that ends in .csv", file=out)
    refuse_foreign(plan.table, targets=(*plan.masks, *plan.overlays))
    failed: dict[str, str] = {}
    images = _readable(opened, spec=predictor.model.spec, failed=failed)
    write: Callable[[Numbered], None] = partial(_write_stack, plan.root, samples)
    if plan.kind == "csv":
        form = form_for(sizes_of(opened), asked=csv, file=out)
        write = _csv_writer(plan.root, samples, predictor, form=form, source=source)
        notes = (*notes, f"{plan.root.name} holds {form} (--csv {form})")
    with PredictionTable(plan.table) as table:
        if plan.kind == "files":
            _write_files(predictor, images, plan=plan, samples=samples, table=table)
        else:
            _write_together(predictor, images, write, plan=plan, samples=samples, table=table)
        count = len(samples) - len(failed)
        if not count:
            first = failed[samples[0].id].rstrip(".")
            raise DataError(f"no image could be predicted; the first one: {first}", file=source)
        for sample in samples:
            if sample.id in failed:
                table.add({"id": sample.id, "image": _place(sample), "error": failed[sample.id]}, written={})
    return Predicted(plan.root, plan.table, count, failed, time.perf_counter() - started, notes)


def _plan(source: Path, opened: Source, *, out: Path, overlays: bool) -> _Plan:
    kind: Literal["files", "arrays", "csv"] = "arrays" if opened.format == "arrays" else "files"
    samples = opened.samples
    if out.suffix.lower() == ".csv":
        kind = "csv"
    if kind != "files":
        root = out if out.suffix.lower() in (".npz", ".csv") else out / f"{source.stem}.npz"
        masks: tuple[Path, ...] = (root,)
        table = root.with_suffix(".jsonl")
    elif out.suffix.lower() == ".png":
        if len(samples) != 1:
            raise OutputError(f"is one file for {len(samples)} masks", mend="give a folder", file=out)
        root, masks, table = out, (out,), out.with_suffix(".jsonl")
    else:
        root, table = out, out / TABLE
        masks = tuple(out / f"{sample.id}.png" for sample in samples)
    _refuse_home(source, opened, out=out, masks=masks if kind == "files" else ())
    folder = (root.parent if root in masks else root) / OVERLAYS
    pictures = tuple(folder / f"{sample.id}.png" for sample in samples) if overlays else ()
    return _Plan(kind, root, table, masks, pictures)


def _refuse_home(source: Path, opened: Source, *, out: Path, masks: Sequence[Path]) -> None:
    """Masks among images would be taken for images the next time, masks beside images for their labels."""
    images = [real(opened.root / sample.image) for sample in opened.samples] if masks else []
    within = source.is_dir() and real(out).is_relative_to(real(source))
    if within or real(out) in {image.parent for image in images}:
        raise OutputError("lies inside the folder of the images", mend="choose a folder outside", file=out)
    for image, mask in zip(images, masks, strict=False):
        if takes_for_mask(image, real(mask)):
            raise OutputError(
                f"the next training would take this prediction for the label of '{image.name}'",
                mend="choose another folder, such as predicted/",
                file=mask,
            )


def _readable(opened: Source, *, spec: ModelSpec, failed: dict[str, str]) -> Iterator[tuple[int, ImageArray]]:
    for position, sample in enumerate(opened.samples):
        try:
            yield position, fit_small(opened.read_image(sample), spec)
        except SegwrightError as error:
            failed[sample.id] = str(error)


def _predicted(
    predictor: Predictor, images: Iterator[tuple[int, ImageArray]]
) -> Iterator[tuple[int, ImageArray, Prediction]]:
    """Each prediction beside the image that it belongs to; only one batch is held."""
    waiting: deque[tuple[int, ImageArray]] = deque()

    def feed() -> Iterator[ImageArray]:
        for position, image in images:
            waiting.append((position, image))
            yield image

    for prediction in predictor.predict_many(feed()):
        position, image = waiting.popleft()
        yield position, image, prediction


def _write_files(
    predictor: Predictor,
    images: Iterator[tuple[int, ImageArray]],
    *,
    plan: _Plan,
    samples: Sequence[Sample],
    table: PredictionTable,
) -> None:
    palette = predictor.classes.palette()
    for position, image, prediction in _predicted(predictor, images):
        target = plan.masks[position]
        write_mask(target, prediction.mask, palette)
        written = {target: digest(target)}
        if plan.overlays:
            table.note(written)  # should this be stopped before the overlay is there
            written |= _write_overlay(plan.overlays[position], image, prediction, palette=palette)
        mask = target.relative_to(plan.table.parent).as_posix()
        table.add(_row(samples[position], prediction, mask=mask), written=written)


Numbered = Iterator[tuple[int, MaskArray]]
"""Position among the samples, and labels."""


def _write_together(
    predictor: Predictor,
    images: Iterator[tuple[int, ImageArray]],
    write: Callable[[Numbered], None],
    *,
    plan: _Plan,
    samples: Sequence[Sample],
    table: PredictionTable,
) -> None:
    """All masks into one file, by `write`, which takes them as they come."""
    palette = predictor.classes.palette()
    rows: list[tuple[dict[str, Any], dict[Path, str]]] = []

    def masks() -> Numbered:
        for position, image, prediction in _predicted(predictor, images):
            pictures = {}
            if plan.overlays:
                pictures = _write_overlay(plan.overlays[position], image, prediction, palette=palette)
                table.note(pictures)
            rows.append((_row(samples[position], prediction, mask=plan.root.name), pictures))
            yield position, prediction.mask

    write(masks())
    if not rows:
        return
    whole = {plan.root: digest(plan.root)}
    for row, pictures in rows:
        table.add(row, written=whole | pictures)


def _write_stack(path: Path, samples: Sequence[Sample], masks: Numbered) -> None:
    numbered = list(masks)
    if not numbered:
        return
    if len({mask.shape for _, mask in numbered}) > 1:
        raise DataError("holds images of several sizes", mend="save each size in a file of its own", file=path)
    ids = np.array([samples[position].id for position, _ in numbered])
    write_arrays(path, {"masks": np.stack([mask for _, mask in numbered]), "ids": ids})


def _csv_writer(
    path: Path, samples: Sequence[Sample], predictor: Predictor, *, form: CsvForm, source: Path
) -> Callable[[Numbered], None]:
    names = submission_names(samples, file=source)
    values = stored_values(predictor.info, num_classes=predictor.classes.num_classes)

    def write(masks: Numbered) -> None:
        named = ((names[position], mask) for position, mask in masks)
        write_submission(path, named, form=form, values=values)

    return write


def _write_overlay(path: Path, image: ImageArray, prediction: Prediction, *, palette: np.ndarray) -> dict[Path, str]:
    mask = prediction.mask
    if is_large(*mask.shape, tile_px=TILE_PX):
        image = scale_down(image, longer_side_px=LARGEST_OVERLAY_PX)
        mask = cv2.resize(mask, image.shape[:0:-1], interpolation=cv2.INTER_NEAREST_EXACT)
    with atomic(path) as stream:
        stream.write(to_png(overlay(image, mask, palette, OVERLAY_ALPHA)))
    return {path: digest(path)}


def _row(sample: Sample, prediction: Prediction, *, mask: str) -> dict[str, Any]:
    shares = {name: round(share, 6) for name, share in prediction.shares.items()}
    return {
        "id": sample.id,
        "image": _place(sample),
        "mask": mask,
        "prevalent": prediction.prevalent,
        "shares": shares,
    }


def _place(sample: Sample) -> str:
    """What an image is known by from one run to the next."""
    return sample.image if sample.row is None else f"{sample.image}[{sample.row}]"
