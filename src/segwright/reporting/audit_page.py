"""The page of an audit: one HTML file without scripts or links, made from `audit.json` and the pictures beside it."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping, Sequence
from pathlib import Path
from shlex import quote as quoted
from typing import Any, Literal

import numpy as np
from markupsafe import Markup

from segwright import charts, pictures
from segwright.errors import DataError, OutputError
from segwright.files import read_image, read_json, read_raw_mask, write_text
from segwright.reporting.frame import GENERATOR, data_uri, environment, is_report
from segwright.types import ClassSet

View = Literal["image", "mask", "labels", "stored", "model", "outlines"]

TITLES: dict[str, str] = {"mend": "Must be mended", "look": "Worth a look", "fine": "Fine"}
"""The verdict in words."""

MOST_LISTED = 500
"""Images of one finding that are listed by name; audit.json names all."""

_SCALES = {
    "brightness": "brightness (0 to 255)", "contrast": "contrast (0 to 255)", "sharpness": "sharpness",
    "saturation": "colourfulness (0 to 1)", "redness": "share of red, less a third",
    "blueness": "share of blue, less a third",
}  # fmt: skip
"""What is compared of training and test pictures, in words."""

MOST_CLASSES_TOGETHER = 24
"""So many classes still make a table of pairs that can be read."""

_CAPTIONS: dict[View, str] = {
    "image": "image", "mask": "image with its mask", "labels": "the mask", "stored": "the mask as stored",
    "model": "what a model sees", "outlines": "mask (orange) and where it would fit better (blue)",
}  # fmt: skip

_PAIR: tuple[View, ...] = ("image", "stored")
_ALONE: tuple[View, ...] = ("image",)
_JUDGED: tuple[View, ...] = ("image", "mask", "model")
_VIEWS: dict[str, tuple[View, ...]] = {
    "broken_image": (), "broken_mask": _ALONE, "missing_mask": _ALONE, "missing_image": (),
    "size_mismatch": _PAIR, "turned_photo": _PAIR, "unknown_label": _PAIR, "soft_mask": _PAIR, "color_confusion": _PAIR,
    "double_mask": _ALONE, "double_name": _ALONE, "broken_line": (), "mixed_values": _PAIR, "speckled_mask": _PAIR,
    "noise_mask": ("image", "labels"), "mixed_channels": _ALONE, "mixed_depths": _ALONE, "mixed_sizes": _ALONE,
    "noise_image": _ALONE, "dark_image": _ALONE, "bright_image": _ALONE, "flat_image": _ALONE, "odd_image": _ALONE,
    "copies": _ALONE, "overlaps": _ALONE, "leak": _ALONE, "neighbours": _ALONE, "shared_mask": _ALONE,
    "shifted_mask": ("image", "outlines"), "doubtful_mask": _JUDGED, "swapped_classes": _JUDGED,
}  # fmt: skip
_USUAL: tuple[View, ...] = ("image", "mask")

_LINES_PX = 256
"""Smaller pictures are enlarged before lines are drawn in them."""

_MASK_LINE = (230, 120, 0)
_FITTING_LINE = (30, 120, 230)


def write_audit_page(folder: Path, *, out: Path | None = None) -> Path:
    """Write the page of an audit and return where it stands: `audit.html` in the folder, or `out`.

    Raises:
        DataError: there is no audit.json, or it is damaged.
        OutputError: another file than a report stands there.
    """
    target = folder / "audit.html" if out is None else out
    if target.exists() and not is_report(target):
        raise OutputError("stands there and is no segwright page", mend="choose another name", file=target)
    tree = read_json(folder / "audit.json")
    try:
        text = render(tree, folder)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise DataError(f"is no whole audit ({error!r})", mend="audit again", file=folder / "audit.json") from None
    write_text(target, text)
    return target


def render(tree: Mapping[str, Any], folder: Path) -> str:
    """The page as a text.

    Args:
        tree: what audit.json holds.
        folder: where it lies, with the pictures that it names.
    """
    source = Path(tree["source"])
    card = "clean.yaml" if tree["repair"] is None else tree["repair"]["card"]
    classes = ClassSet(tuple(tree["classes"]["names"]), tuple((r, g, b) for r, g, b in tree["classes"]["colors"]))
    moves = {name: told["px"] for name, told in tree["answers"].get("alignment", {}).get("moved", {}).items()}
    panels = _Panels(tree["pictures"], folder, classes.palette(), moves=moves)
    findings = [_finding(finding, panels) for finding in tree["findings"]]
    template = environment().get_template("audit.html.j2")
    return template.render(
        audit=tree,
        name=source.name,
        generator=Markup(GENERATOR),  # noqa: S704  # a constant
        version=importlib.metadata.version("segwright"),
        titles=TITLES,
        lead=lead(tree),
        parts=[(level, [one for one in findings if one["level"] == level]) for level in ("mend", "look")],
        reasons=reasons_of(tree),
        steps=next_steps(tree, data=quoted(str(source)), card=quoted(card)),
        classes=classes,
        counted=_counted(tree["answers"].get("frequencies", {}), classes),
        light=_light(tree["answers"].get("shift", {}), tree["curves"]),
    )


def _counted(facts: Mapping[str, Any], classes: ClassSet) -> dict[str, Any] | None:
    """What was counted of each class, with its colour; None where no mask could be read."""
    rows = [
        {**row, "color": color, "points": None if row["width"] is None else round(50 * row["width"])}
        for row, color in zip(facts.get("classes", []), classes.colors, strict=False)
    ]
    if not any(row["images"] for row in rows):
        return None
    return {
        "rows": rows,
        "images": facts["images"],
        "largest": max(row["share"] for row in rows),
        "together": facts["together"] if len(rows) <= MOST_CLASSES_TOGETHER else [],
        "weights": facts["weights"],
    }


def _light(facts: Mapping[str, Any], curves: Mapping[str, Any]) -> dict[str, Any] | None:
    """Light and colour of the training pictures, and of the test pictures where they were compared; None of neither."""
    if not curves:
        return None
    sides = {"training": "train", "test": "test"}
    drawn = [
        charts.share_curves(
            curve["edges"], {label: curve[side] for label, side in sides.items() if side in curve}, title=_SCALES[name]
        )
        for name, curve in curves.items()
        if name in facts
    ]
    return {
        "charts": [Markup(chart) for chart in drawn],  # noqa: S704  # matplotlib escapes the texts
        "rows": [{"name": _SCALES[name], **facts[name]} for name in _SCALES if name in facts],
        "counts": (facts["training_pictures"], facts["test_pictures"]),
        "recipe": facts.get("recipe", {}),
        "light": {key: list(dict.fromkeys(values)) for key, values in facts.get("normalisation", {}).items()},
    }


def lead(tree: Mapping[str, Any]) -> str:
    """The verdict as a sentence."""
    mend, look = tree["counts"]["mend"], tree["counts"]["look"]
    images = f"{tree['images']:,} image{'s' * (tree['images'] != 1)}"
    if not mend and not look:
        return f"Nothing was found in {images} that would spoil a training or its score."
    told = []
    if mend:
        told.append(f"{mend} thing{'s' * (mend > 1)} would spoil a training or its score")
    if look:
        told.append(
            f"{look} {'more ' if mend else 'thing' + 's' * (look > 1) + ' '}{'is' if look == 1 else 'are'} worth a look"
        )
    return f"In {images}, {' and '.join(told)}."


def sentence(text: str) -> str:
    """The text as a sentence: a capital at its start, a stop at its end."""
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")


def next_steps(tree: Mapping[str, Any], *, data: str, card: str) -> list[tuple[str, str]]:
    """What to type next: commands, and what each does.

    Args:
        tree: what audit.json holds.
        data: the data, as the reader would type it.
        card: the repaired card, likewise.
    """
    train = (f"segwright train {card}", "trains on the data as the repaired card reads them")
    if tree["repair"] is not None:
        return [train]
    repair = (f"segwright audit {data} --fix {card}", "writes a repaired card; pictures and masks stay as they are")
    if tree["verdict"] == "mend":
        return [repair, train]
    plain = (f"segwright train {data}", "trains on the data as they are")
    useful = tree["drop"] or tree["answers"].get("duplicates", {}).get("groups")
    return [plain, repair] if useful else [plain]


def reasons_of(tree: Mapping[str, Any]) -> list[tuple[str, int]]:
    """Why images would be left out, each reason with its number of images, the most frequent first."""
    counts: dict[str, int] = {}
    for reason in tree["reasons"].values():
        counts[reason] = counts.get(reason, 0) + 1
    return sorted(counts.items(), key=lambda pair: -pair[1])


class _Panels:
    """Small pictures of images by id, as they are set into the page.

    Args:
        described: what the audit tells of each image.
        folder: of the audit.
        palette: of the classes.
        moves: by how many pixels of the image, right and down, a mask would fit better.
    """

    def __init__(
        self, described: Mapping[str, Mapping[str, Any]], folder: Path, palette: np.ndarray,
        *, moves: Mapping[str, Sequence[float]],
    ) -> None:  # fmt: skip
        self._described, self._folder, self._palette, self._moves = described, folder, palette, moves

    def about(self, name: str) -> Mapping[str, Any]:
        return self._described[name]

    def tile(self, name: str, view: View) -> dict[str, Any] | None:
        """One picture; None where the audit kept none of this kind."""
        picture = self._drawn(name, view)
        if picture is None:
            return None
        height, width = picture.shape[:2]
        return {"uri": data_uri(picture), "width": width, "height": height, "caption": _CAPTIONS[view], "name": name}

    def _drawn(self, name: str, view: View) -> pictures.Picture | None:
        if view == "stored" and (stored := self._read(name, "-raw.png")) is not None:
            return pictures.as_rgb(stored)
        mask = None if view in ("image", "model") else self._read(name, "-mask.png")
        if view in ("stored", "labels"):
            return None if mask is None else pictures.colored(mask, self._palette)
        image = self._read(name, ".webp")
        if image is None or view == "image":
            return None if image is None else pictures.as_rgb(image)
        if view == "outlines":
            return None if mask is None else self._with_outlines(name, image, mask)
        labels = mask if view == "mask" else self._read(name, "-pred.png")
        return None if labels is None else pictures.overlay(image, labels, self._palette)

    def _with_outlines(self, name: str, image: np.ndarray, mask: np.ndarray) -> pictures.Picture:
        """The borders of a mask, and those of the same mask where it would fit better."""
        times = max(1, _LINES_PX // max(image.shape[1:]))
        larger = _enlarged(mask, times)
        size_px = self._described[name]["size_px"] or mask.shape
        right, down = (move * larger.shape[1] / size_px[1] for move in self._moves.get(self.about(name)["id"], (0, 0)))
        step = (round(down), round(right))
        lines = {_MASK_LINE: larger, _FITTING_LINE: np.roll(larger, step, axis=(0, 1))}
        return pictures.outlined(_enlarged(image, times), lines)

    def _read(self, name: str, ending: str) -> np.ndarray | None:
        path = self._folder / f"{self._described[name]['files']}{ending}"
        if not path.is_file():
            return None
        return read_image(path) if ending in (".webp", "-raw.png") else read_raw_mask(path)


def _enlarged(pixels: np.ndarray, times: int) -> np.ndarray:
    return pixels.repeat(times, axis=-1).repeat(times, axis=-2)


def _finding(told: Mapping[str, Any], panels: _Panels) -> dict[str, Any]:
    """A finding with its pictures and with the names of the images that are not pictured."""
    examples = [_example(members, told, panels) for members in told["shown"]]
    pictured = {panels.about(name)["id"] for members in told["shown"] for name in members}
    others = [(name, told["notes"].get(name, "")) for name in told["ids"] if name not in pictured]
    return {
        **told,
        "summary": sentence(told["summary"]),
        "count": len(told["ids"]),
        "examples": examples,
        "in_sets": any(len(members) > 1 for members in told["shown"]),
        "others": others[:MOST_LISTED],
        "left": len(others),
    }


def _example(members: Sequence[str], told: Mapping[str, Any], panels: _Panels) -> dict[str, Any]:
    """One image, or several that belong together, with what was seen at each."""
    views = _VIEWS.get(told["kind"], _USUAL)
    tiles = [panels.tile(name, view) for name in members for view in views]
    if told["kind"] == "shared_mask":
        tiles.insert(0, panels.tile(members[0], "labels"))
    lines = [_line(panels.about(name), notes=told["notes"]) for name in members]
    kept = [tile for tile in tiles if tile is not None]
    return {"tiles": kept, "lines": lines, "several": len(members) > 1}


def _line(about: Mapping[str, Any], *, notes: Mapping[str, str]) -> dict[str, Any]:
    """How a person finds an image, its file or for arrays its number and where it stands, and what was seen there."""
    file, more = about["image_file"] or about["id"], {"side": about["side"], "note": notes.get(about["id"], "")}
    if "[" in file:
        return {"folder": f"{file} ", "name": about["id"], **more}
    folder, slash, last = file.rpartition("/")
    return {"folder": folder + slash, "name": last, **more}
