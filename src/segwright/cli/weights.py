"""`segwright weights`: which encoder weights are on this machine, and which could be had."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from segwright.cli.text import examples, say, show_table, shown, size_text

EXAMPLES = examples("segwright weights", "segwright weights resnet18")

_OWNERS = ("models--smp-hub--", "models--timm--")


def weights(
    encoder: Annotated[str | None, typer.Argument(help="An encoder, for the weights that it can have.")] = None,
) -> None:
    """Tell which encoder weights are on this machine; nothing is downloaded."""
    from huggingface_hub.constants import HF_HUB_CACHE

    cache = Path(HF_HUB_CACHE)
    here = _in_cache(cache)
    if encoder is not None:
        _show_encoder(encoder)
        here = [(name, size) for name, size in here if encoder.removeprefix("tu-") in name]
    if here:
        rows = [[name, size_text(size)] for name, size in here]
        show_table(f"On this machine, in {shown(cache)}", ["weights", "size"], rows, right=("size",))
    else:
        say(f"None on this machine, in {shown(cache)}.")
    say("Training downloads what it needs, unless SEGWRIGHT_OFFLINE is 1. Files are named as model.weights=FILE.")


def _show_encoder(encoder: str) -> None:
    from segwright.errors import RecipeError, nearest
    from segwright.models.library import TIMM, encoders_of
    from segwright.models.weights import known_weights

    usual = encoders_of("smp_unet")
    if encoder not in usual and not encoder.startswith(TIMM):
        raise RecipeError(f"there is no encoder '{encoder}'", mend=nearest(encoder, usual))
    say(f"{encoder} can have: {', '.join(known_weights(encoder)) or 'none'}")


def _in_cache(cache: Path) -> list[tuple[str, int]]:
    """Complete weights in the hub's cache: repository and bytes."""
    found = []
    for folder in sorted(cache.glob("models--*")):
        files = [file for file in folder.glob("snapshots/*/*") if file.is_file()]
        if folder.name.startswith(_OWNERS) and files:
            name = folder.name.removeprefix("models--").replace("--", "/", 1)
            found.append((name, sum(file.stat().st_size for file in files)))
    return found
