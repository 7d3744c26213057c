"""`segwright pseudo`: let a model label images, and train a student on them too."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from segwright.cli.text import examples, say, shown
from segwright.errors import one_line

EXAMPLES = examples(
    "segwright pseudo runs/night-1 unlabelled_photos/ -o photos-pseudo/",
    "segwright pseudo runs/night-1 mars.npz --key test_set -o mars-pseudo/ --confidence 0.95",
    "segwright pseudo ensemble/ unlabelled_photos/ -o photos-pseudo/ --join runs/night-1",
    "segwright train photos-pseudo/recipe.yaml --name student-1",
)
FIRST = 3


def pseudo(
    teacher: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run or of a bundle: the teacher.")],
    images: Annotated[Path, typer.Argument(help="A picture, a folder of pictures, or an npz of images.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="A new folder for the data set.")],
    confidence: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Pixels of which the model is less sure are void.")
    ] = 0.9,
    least_share: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Images with a smaller share of sure pixels are left out.")
    ] = 0.5,
    key: Annotated[
        str | None,
        typer.Option(help="Which array of an npz. \\[default: those without masks; all, where all or none have masks]"),
    ] = None,
    join: Annotated[
        Path | None,
        typer.Option(metavar="RUN", help="The run whose own images these join. \\[default: the teacher's]"),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 ...")] = "auto",
) -> None:
    """Label images by a model, where it is sure, and write them beside its run's own as a new data set.

    Only the training side grows; validation and test images stay as they are.
    """
    from segwright import verbs

    done = verbs.pseudo(
        teacher,
        images,
        out=out,
        confidence=confidence,
        least_share=least_share,
        key=key,
        join=join,
        device=device,
    )
    say(f"{done.taken} images labelled, beside {done.originals} that people have labelled")
    kept = [f"{name} {share:.0%}" for name, share in done.kept_by_class.items() if share is not None]
    say(one_line(f"Kept of the pixels of each class: {', '.join(kept)}"))
    if done.left_out:
        few = "; ".join(f"{name}: {why}" for name, why in [*done.left_out.items()][:FIRST])
        say(one_line(f"{len(done.left_out)} left out, see {shown(done.folder / 'left-out.csv')}; {few}"))
    for note in done.notes:
        say(f"Note: {one_line(note)}")
    say(f"Look at: {shown(done.folder / 'contact-sheet.png')}")
    start = "" if done.start_from is None else f" --from {shown(done.start_from)}"
    say(f"Train:   segwright train {shown(done.folder / 'recipe.yaml')}{start}")
