"""`segwright models`: which networks there are, and what each may be told."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from segwright.cli.text import examples, say, show_table

if TYPE_CHECKING:
    from segwright.models import ModelEntry

EXAMPLES = examples("segwright models", "segwright models unet", "segwright models fpn")


def models(
    name: Annotated[str | None, typer.Argument(help="One of them, for its arguments and encoders.")] = None,
) -> None:
    """List the models, or the arguments and encoders of one."""
    from segwright.errors import RecipeError, nearest
    from segwright.models import MODELS

    if name is None:
        rows = [[key, "yes" if entry.takes_encoder else "no", entry.line] for key, entry in MODELS.items()]
        show_table("Models", ["name", "encoder", "what"], rows)
        say("segwright models NAME tells what one may be told.")
        return
    if name not in MODELS:
        raise RecipeError(f"there is no model '{name}'", mend=nearest(name, MODELS))
    _show_one(name, MODELS[name])


def _show_one(name: str, entry: ModelEntry) -> None:
    from segwright.models.library import encoders_of

    say(f"{name}: {entry.line}\n{entry.paper}")
    rows = [[key, repr(value)] for key, value in entry.arguments.items()]
    show_table("model.arguments", ["key", "default"], rows)
    if entry.takes_encoder:
        say(f"model.encoder: {', '.join(encoders_of(name))}")
        say("and most of timm, as tu-NAME: https://huggingface.co/timm")
