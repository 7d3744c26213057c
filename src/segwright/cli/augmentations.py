"""`segwright augmentations`: how training images can be changed."""

from __future__ import annotations

from segwright.cli.text import examples, say, show_table

EXAMPLES = examples(
    "segwright augmentations",
    "segwright train photos/ -o augment.preset=strong -o augment.elastic_px=6",
    "segwright augment photos/ -n 500 -o photos-500/",
)


def augmentations() -> None:
    """List the changes of training images, and the keys of a recipe that turn them on."""
    from segwright.augment import PRESETS
    from segwright.augment.catalogue import AUGMENTATIONS
    from segwright.augment.mix import MIXINGS

    rows = [
        [name, one.family, ", ".join(f"augment.{key}" for key in one.keys.split(", ")), one.line, one.paper]
        for name, one in AUGMENTATIONS.items()
    ]
    rows += [[name, "mixing", f"mix.{name}", line, paper] for name, (line, paper) in MIXINGS.items()]
    show_table("Augmentations", ["name", "family", "recipe", "what", "paper"], rows)
    say(f"Presets (augment.preset): {', '.join(PRESETS)}. What a recipe names itself goes before its preset.")
