"""`segwright study`: all runs of a table from one file, what is missing alone."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NoReturn

import typer

from segwright.cli.text import examples, say, show_table, shown, size_text
from segwright.errors import RecipeError, RunStopped

if TYPE_CHECKING:
    from segwright.studies.estimate import Estimate
    from segwright.studies.learning_curve import Curve
    from segwright.studies.machines import Machines

EXAMPLES = examples(
    "segwright study losses.yaml --dry-run",
    "segwright study losses.yaml",
    "segwright study losses.yaml --jobs 4 --only dice --seeds 0,1",
    "segwright study losses.yaml --retry",
    "segwright study losses.yaml --launcher slurm --gpus 1 --cpus 8 --slurm-option=--partition=gpu",
    "segwright study --learning-curve photos/ --seeds 0,1,2",
)


def study(
    source: Annotated[
        Path, typer.Argument(metavar="STUDY.yaml", help="The study; with --learning-curve data or a recipe.")
    ],
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="Folder of the study. \\[default: studies-runs/NAME]")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the runs, and about how long and how large they are; train none.")
    ] = False,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Runs at a time. \\[default: one a GPU, else 2; of a cluster what it has]")
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option("--only", metavar="ROW", help="This row alone. Can be repeated.")
    ] = None,
    seeds: Annotated[str | None, typer.Option(metavar="0,1,2", help="These seeds alone.")] = None,
    retry: Annotated[bool, typer.Option("--retry", help="Try runs again that failed before.")] = False,
    launcher: Annotated[Literal["local", "slurm", "ray"], typer.Option(help="Where the runs run.")] = "local",
    cpus: Annotated[int, typer.Option(min=1, help="Cores of a run, on a cluster.")] = 1,
    gpus: Annotated[
        int | None, typer.Option(min=0, help="GPUs of a run. \\[default: 1 where this machine has some]")
    ] = None,
    slurm_option: Annotated[
        list[str] | None, typer.Option(metavar="OPTION", help="For #SBATCH, as --partition=gpu. Can be repeated.")
    ] = None,
    ray_address: Annotated[str | None, typer.Option(help="Of a Ray cluster that is there.")] = None,
    learning_curve: Annotated[
        bool, typer.Option("--learning-curve", help="How the score grows with the number of training images.")
    ] = False,
    more: Annotated[int, typer.Option(min=1, help="With --learning-curve: so many more images are asked about.")] = 200,
) -> None:
    """Train every run of a study that is not there yet; a study that was stopped goes on where it was."""
    from segwright import verbs
    from segwright.studies.machines import Machines

    machines = Machines(launcher, jobs, cpus, gpus, tuple(slurm_option or ()), ray_address)
    numbers = _numbers(seeds)
    if learning_curve:
        if only or dry_run or retry:
            raise RecipeError("--only, --dry-run and --retry do not go with --learning-curve", mend="leave them out")
        _learning_curve(source, out=out, seeds=numbers, more=more, machines=machines)
        return
    if dry_run:
        _show_plan(verbs.plan_study(source, out=out, only=only or (), seeds=numbers, machines=machines))
        return
    try:
        done = verbs.study(source, out=out, only=only or (), seeds=numbers, machines=machines, retry=retry)
    except RunStopped as stop:
        _leave_stopped(stop)
    say(f"{done.done} runs are done, {done.failed} failed, in {done.seconds / 60:.1f} minutes")
    if done.failed:
        say(f"Errors: {shown(done.out / 'errors')}; try them again with --retry")
    if (done.out / "leaderboard.html").is_file():
        say(f"Table:  {shown(done.out / 'leaderboard.html')}")
    say(f"Study:  {shown(done.out)}")
    if done.failed:
        raise SystemExit(1)


def _leave_stopped(stop: RunStopped) -> NoReturn:
    print(f"segwright: {stop}", file=sys.stderr)  # noqa: T201  # without rich, which would wrap the line
    raise SystemExit(128 + stop.signal_number) from None


def _numbers(text: str | None) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in (text or "").split(",") if part.strip())
    except ValueError:
        raise RecipeError(f"'--seeds {text}' is no list of numbers", mend="write 0,1,2") from None


def _show_plan(plan: Estimate) -> None:
    rows = [[row.name, row.state, _minutes(row.minutes), size_text(row.size_bytes), row.note] for row in plan.runs]
    show_table(f"{len(rows)} runs", ["run", "state", "minutes", "disk", "note"], rows, right=["minutes", "disk"])
    waits = [row for row in plan.runs if row.state != "done"]
    size = size_text(sum(row.size_bytes for row in waits))
    say(f"To be trained: {len(waits)} runs, about {plan.wall_minutes:.1f} minutes with {plan.jobs} at a time, {size}")
    say("Times are those of steps that were measured here, just now.")


def _minutes(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _learning_curve(source: Path, *, out: Path | None, seeds: tuple[int, ...], more: int, machines: Machines) -> None:
    from segwright import verbs

    try:
        curve = verbs.learning_curve(source, out=out, seeds=seeds or (0, 1, 2), more=more, machines=machines)
    except RunStopped as stop:
        _leave_stopped(stop)
    _show_curve(curve)


def _show_curve(curve: Curve) -> None:
    heads = ["images", "mIoU", "sd", "runs"]
    rows = []
    for point in curve.points:
        deviation = "-" if point.deviation is None else f"{point.deviation:.4f}"
        rows.append([f"{point.images:.0f}", f"{point.mean:.4f}", deviation, str(point.runs)])
    show_table("mIoU by training images", heads, rows, right=heads)
    for sentence in curve.sentences:
        say(sentence)
    say(f"Report: {shown(curve.out / 'learning-curve.html')}")
    say(f"Study:  {shown(curve.out)}")
