"""Options whose menus several verbs share.

The words are those of the rooms below, which would make `segwright --help` slow if they were imported for it; a test
compares them.
"""

from __future__ import annotations

from typing import Annotated, Literal

import typer

Definition = Literal["declared", "all_classes", "ignore_in_score", "leave_out_of_mean", "keras-mars"]
"""As `segwright.metrics.Definition`."""

Matching = Literal["none", "moments", "histogram"]
"""As `segwright.augment.matching.Matching`."""

Flips = Literal["none", "horizontal", "both", "all"]
"""As `segwright.prediction.tta.Flips`."""

MatchOption = Annotated[
    Matching, typer.Option(help="Bring the tones of each image to those of the training images first.")
]
FlipsOption = Annotated[
    Flips, typer.Option(help="Average over mirrored copies; both: also upside down; all: also quarter turns.")
]
