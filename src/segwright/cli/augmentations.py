"""`segwright augmentations`: how training images can be changed."""

from __future__ import annotations

from segwright.cli.text import examples, say, show_table

EXAMPLES = examples(
    "segwright augmentations",
    "segwright train photos/ -o augment.preset=strong -o augment.elastic_px=6",
    "segwright augment photos/ -n 500 -o photos-500/",
)


def augmentations() -> None:
    """List the changes of training images, the keys of a recipe that turn them on, and what each preset contains."""
    from segwright.augment.catalogue import AUGMENTATIONS, preset_table
    from segwright.augment.mix import MIXINGS
    from segwright.recipe import AugmentRecipe

    rows = [
        [name, one.family, ", ".join(f"augment.{key}" for key in one.keys.split(", ")), one.line, one.paper]
        for name, one in AUGMENTATIONS.items()
    ]
    rows += [[name, "mixing", f"mix.{name}", line, paper] for name, (line, paper) in MIXINGS.items()]
    show_table("Augmentations", ["name", "family", "recipe", "what", "paper"], rows)
    heads, cells = preset_table()
    show_table("Presets (augment.preset)", heads, cells)
    say(f"The default is {AugmentRecipe().preset}. What a recipe names itself goes before its preset.")
    say("segwright keys augment tells the range of each key.")
