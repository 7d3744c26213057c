"""Every change of a single image, for people: what it is called in a recipe, what it does, and whence it comes.

Those that mix images stand in `segwright.augment.mix`. The table of presets in `docs/how-to/augment.md` is written by
`python -m segwright.augment.catalogue`.
"""

from __future__ import annotations

import sys
from typing import Any, Literal, NamedTuple

from segwright.augment.policy import PRESETS, Policy


class Augmentation(NamedTuple):
    """A line of the list."""

    family: Literal["geometry", "colour", "choice"]
    keys: str
    line: str
    paper: str


CROP = "Krizhevsky et al. 2012, https://doi.org/10.1145/3065386"
AFFINE = "Simard et al. 2003, https://doi.org/10.1109/ICDAR.2003.1227801"
COLOR = "Howard 2013, https://arxiv.org/abs/1312.5402"

AUGMENTATIONS: dict[str, Augmentation] = {
    "flip": Augmentation("geometry", "flip_horizontal, flip_vertical", "mirror images, each with a probability", CROP),
    "quarter turns": Augmentation("geometry", "quarter_turns", "0, 90, 180 or 270 degrees; no pixel is blurred", CROP),
    "rotation": Augmentation("geometry", "rotate_degrees", "up to an angle either way", AFFINE),
    "fill": Augmentation(
        "geometry", "rotate_fill", "empty corners show the reflection, or just enough zoom leaves none", "",
    ),
    "zoom": Augmentation("geometry", "scale", "between two factors; large images are cropped", CROP),
    "shear": Augmentation("geometry", "shear_degrees", "slant either axis", AFFINE),
    "translation": Augmentation("geometry", "translate", "shift by up to a share of the side", AFFINE),
    "elastic": Augmentation("geometry", "elastic_px, elastic_sigma_px", "a smooth random field of shifts", AFFINE),
    "grid": Augmentation(
        "geometry", "grid_distortion", "the nodes of a coarse grid move",
        "Buslaev et al. 2020, https://doi.org/10.3390/info11020125",
    ),
    "brightness": Augmentation("colour", "brightness", "add up to a share of full scale", COLOR),
    "contrast": Augmentation("colour", "contrast", "stretch about mid-gray", COLOR),
    "gamma": Augmentation("colour", "gamma", "a power of the values", COLOR),
    "hue": Augmentation("colour", "hue_degrees", "turn colours", COLOR),
    "saturation": Augmentation("colour", "saturation", "stretch about gray", COLOR),
    "blur": Augmentation("colour", "blur_sigma_px", "a Gaussian, on one image in four", ""),
    "noise": Augmentation("colour", "noise", "normal noise, on one image in four", ""),
    "matching": Augmentation(
        "colour", "match, match_to", "take over the histogram of a picture of another set",
        "Gonzalez & Woods, Digital Image Processing, ch. 3",
    ),
    "selection": Augmentation("choice", "only_classes", "images that hold none of these classes stay as they are", ""),
}  # fmt: skip


def preset_table() -> tuple[list[str], list[list[str]]]:
    """Heads and rows of what each preset contains: the keys that one of them sets, `-` where it leaves them as off."""
    unchanged = Policy()
    names = [name for name in Policy.__dataclass_fields__ if name != "match_to"]

    def cell(preset: Policy, name: str) -> str:
        value = getattr(preset, name)
        return "-" if value == getattr(unchanged, name) else _shown(value)

    rows = [[name, *(cell(preset, name) for preset in PRESETS.values())] for name in names]
    return ["key", *PRESETS], [row for row in rows if set(row[1:]) != {"-"}]


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(map(_shown, value))}]"
    return str(value).lower() if isinstance(value, bool | str) else f"{value:g}"


def presets_as_markdown() -> str:
    """The same as a table in Markdown."""
    heads, rows = preset_table()
    lines = [heads, ["---"] * len(heads), *([f"`{name}`", *cells] for name, *cells in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


if __name__ == "__main__":
    sys.stdout.write(presets_as_markdown())
