"""The page of a comparison of runs: one HTML file without scripts or links, and its images as one PNG."""

from __future__ import annotations

import importlib.metadata
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from markupsafe import Markup

from segwright import pictures
from segwright.errors import OutputError
from segwright.files import atomic, write_text
from segwright.reporting.board_page import known_number, signed_range
from segwright.reporting.board_tables import p_text
from segwright.reporting.frame import GENERATOR, data_uri, environment, is_report
from segwright.studies.compare import Compared, Kind, RunComparison, Side

TITLES: Mapping[Kind, str] = {
    "differ": "Where they differ most",
    "best": "Best, by their mean",
    "worst": "Worst, by their mean",
}
_CELL_PX, _GAP_PX, _HEAD_PX = 224, 6, 26


def write_comparison(found: RunComparison, path: Path) -> list[Path]:
    """Write the page, and beside it the images as a PNG where there are any; return both.

    Raises:
        OutputError: another file than segwright's own stands there.
    """
    image = path.with_suffix(".png")
    if path.exists() and not is_report(path):
        raise OutputError("stands there and is no segwright page", mend="choose another name with -o", file=path)
    if found.sides and image.exists() and not path.exists():
        raise OutputError("stands there, and no page of segwright beside it", mend="choose another -o", file=image)
    write_text(path, render(found))
    if not found.sides:
        return [path]
    with atomic(image) as stream:
        stream.write(pictures.to_png(contact_sheet(found)))
    return [path, image]


def names_of(runs: Sequence[Compared]) -> list[str]:
    """What each run is called: by its folder, with the folder above where two are called alike."""
    short = [one.run.resolve().name for one in runs]
    if len(set(short)) == len(short):
        return short
    return ["/".join(one.run.resolve().parts[-2:]) for one in runs]


def render(found: RunComparison) -> str:
    """The page as a text."""
    made = environment()
    made.filters |= {"known": known_number, "p_text": p_text, "signed": signed_range}
    names = names_of(found.runs)
    return made.get_template("comparison.html.j2").render(
        found=found,
        names=names,
        generator=Markup(GENERATOR),  # noqa: S704  # a constant
        version=importlib.metadata.version("segwright"),
        parts=[
            (TITLES[kind], [_panel(side, found) for side in found.sides if side.kind == kind])
            for kind in TITLES
            if any(side.kind == kind for side in found.sides)
        ],
        differing=_differing(found),
    )


def _differing(found: RunComparison, count: int = 20) -> list[dict[str, Any]]:
    """The images on which the runs are furthest apart, with the score of each."""
    spread = np.ptp(found.image_scores, axis=0)
    order = [i for i in np.argsort(-spread, kind="stable") if not math.isnan(spread[i])][:count]
    return [
        {"id": found.ids[i], "spread": float(spread[i]), "scores": found.image_scores[:, i].tolist()} for i in order
    ]


def _views(side: Side, found: RunComparison) -> list[pictures.Picture]:
    """The image, its truth, and what each run predicts."""
    planes, palette = side.image.transpose(2, 0, 1), found.classes.palette()
    labels = [side.mask, *side.preds]
    return [side.image, *(pictures.overlay(planes, label, palette, alpha=0.7) for label in labels)]


def _panel(side: Side, found: RunComparison) -> dict[str, Any]:
    height, width = side.mask.shape
    uris = [data_uri(view) for view in _views(side, found)]
    return {"id": side.id, "scores": side.scores, "uris": uris, "width": width, "height": height}


def contact_sheet(found: RunComparison) -> pictures.Picture:
    """All images as one picture: a row an image; columns image, truth and each run, with its name and mIoU above."""
    heads = ["image", "truth", *names_of(found.runs)]
    rows = []
    for side in found.sides:
        texts = [f"{side.kind}: {side.id}", "", *(known_number(score) for score in side.scores)]
        cells = [_cell(view, text) for view, text in zip(_views(side, found), texts, strict=True)]
        rows.append(np.concatenate(cells, axis=1))
    top = np.concatenate([_text(head) for head in heads], axis=1)
    return np.concatenate([top, *rows])


def _cell(view: pictures.Picture, text: str) -> np.ndarray:
    height, width = view.shape[:2]
    factor = _CELL_PX / max(height, width)
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    scaled = cv2.resize(view, size, interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_NEAREST)
    cell = np.full((size[1] + _GAP_PX, _CELL_PX + _GAP_PX, 3), 255, dtype=np.uint8)
    cell[: size[1], : size[0]] = scaled
    return np.concatenate([_text(text), cell])


def _text(text: str) -> pictures.Picture:
    """A line of text; letters that OpenCV's font has not become question marks, and long ones lose their start."""
    line = np.full((_HEAD_PX, _CELL_PX + _GAP_PX, 3), 255, dtype=np.uint8)
    shown = text if len(text) <= 30 else f"...{text[-27:]}"
    plain = shown.encode("ascii", "replace").decode()
    cv2.putText(line, plain, (2, 18), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (40, 40, 40), 1, cv2.LINE_AA)
    return line
