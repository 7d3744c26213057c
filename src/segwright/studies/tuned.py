"""What a search found, on disk: trials.csv, tune.json, and the winner as a recipe that `segwright train` takes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from segwright.errors import DataError
from segwright.files import read_json, write_csv, write_json, write_text, write_yaml
from segwright.metrics import Definition
from segwright.recipe import Recipe

Objective = Literal["miou", "dice", "pixel_accuracy", "mean_pixel_accuracy", "images_per_second"]
"""All are better high. The speed is that of predicting the validation images, as measured while they were scored."""

State = Literal["done", "pruned", "failed", "running", "waiting"]

OPTIMISM = (
    "The validation images chose the winner, so its score on them is too good: the more trials, the more so. Judge it "
    "on images that no trial was scored on (segwright evaluate RUN --split test, or --data), and against the base with "
    "several seeds."
)


@dataclass(frozen=True)
class Tried:
    """One trial.

    Attributes:
        number: in the order in which they were begun, on all machines.
        state: done and pruned ones count; a failed one left an error.
        scores: objective to what was reached; empty where it is not done.
        values: key of the recipe to what was tried.
        minutes: from its start to its end.
        run: name of its folder; empty before it has one.
    """

    number: int
    state: State
    scores: Mapping[str, float]
    values: Mapping[str, Any]
    minutes: float
    run: str


@dataclass(frozen=True)
class Tuned:
    """What a search found.

    Attributes:
        folder: where it all stands.
        objectives: what was searched for.
        definition: which score counts.
        trials: all of them.
        front: numbers of the trials that no other one beats in every objective, the first objective's best first.
        base: number of the trial of the base's own values; None where it is not done.
        importances: key to its share of the differences in the first objective; empty with too few trials.
    """

    folder: Path
    objectives: tuple[str, ...]
    definition: str
    trials: tuple[Tried, ...]
    front: tuple[int, ...]
    base: int | None
    importances: Mapping[str, float]

    @property
    def best(self) -> Tried | None:
        """The best by the first objective."""
        return next((trial for trial in self.trials if self.front and trial.number == self.front[0]), None)


def front_of(trials: Sequence[Tried], objectives: Sequence[str]) -> tuple[int, ...]:
    """The Pareto front (of one objective: the best trial alone), the first objective's best first."""
    done = [trial for trial in trials if trial.state == "done"]
    points = {trial.number: tuple(trial.scores[name] for name in objectives) for trial in done}
    kept: list[int] = []
    for number, point in sorted(points.items(), key=lambda one: ([-value for value in one[1]], one[0])):
        # Those before it are better in the first objective or alike in it.
        if not any(all(a >= b for a, b in zip(points[other], point, strict=True)) for other in kept):
            kept.append(number)
    return tuple(kept)


def scores_of(run: Path, *, objectives: Sequence[str], definition: Definition) -> dict[str, float]:
    """What a trained run reached.

    Raises:
        DataError: its scores are missing, or that score is unknown.
    """
    summary = read_json(run / "scores" / "val.json")
    told = summary["definitions"].get(definition, {})
    scores = {}
    for name in objectives:
        value = summary[name] if name == "images_per_second" else told.get(name, {}).get("estimate")
        if value is None:
            problem = f"holds no '{name}' by the definition '{definition}'"
            raise DataError(problem, mend="choose another objective or definition", file=run / "scores" / "val.json")
        scores[name] = float(value)
    return scores


def epochs_of(run: Path) -> list[dict[str, Any]]:
    """The rows of a run's metrics.jsonl so far; a line that is just being written is passed over."""
    try:
        lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    rows = []
    for line in lines:
        try:
            rows.append(json.loads(line))
        except ValueError:
            continue
    return rows


def write_found(found: Tuned, *, recipes: Mapping[int, Recipe]) -> None:
    """Write trials.csv, tune.json, best.yaml and, with several objectives, a recipe for every place of the front.

    Args:
        found: the search so far.
        recipes: of the trials in the front, by number.
    """
    keys = list(dict.fromkeys(key for trial in found.trials for key in trial.values))
    rows: list[list[Any]] = [["trial", "state", *found.objectives, "minutes", *keys, "run"]]
    for trial in found.trials:
        scores = [trial.scores.get(name, float("nan")) for name in found.objectives]
        values = [_cell(trial.values.get(key)) for key in keys]
        rows.append([trial.number, trial.state, *scores, trial.minutes, *values, trial.run])
    write_csv(found.folder / "trials.csv", rows)
    write_json(found.folder / "tune.json", {**asdict(found), "folder": found.folder.name})
    for place, number in enumerate(found.front):
        trial = next(trial for trial in found.trials if trial.number == number)
        told = ", ".join(f"{name} {value:.4f}" for name, value in trial.scores.items())
        head = f"# Trial {number} of a search: {told} (validation images). Train it with: segwright train FILE\n"
        name = "best.yaml" if place == 0 else f"front-{place + 1}.yaml"
        write_yaml(found.folder / name, recipes[number].as_dict(), head=head)
    write_text(found.folder / "README.txt", OPTIMISM + "\n")


def read_found(folder: Path) -> Tuned:
    """What `write_found` wrote.

    Raises:
        DataError: it is missing or damaged.
    """
    tree = read_json(folder / "tune.json")
    try:
        trials = tuple(Tried(**trial) for trial in tree["trials"])
        return Tuned(
            folder,
            tuple(tree["objectives"]),
            tree["definition"],
            trials,
            tuple(tree["front"]),
            tree["base"],
            tree["importances"],
        )
    except (KeyError, TypeError) as error:
        raise DataError(f"is damaged ({error})", mend="run segwright tune again", file=folder / "tune.json") from None


def _cell(value: Any) -> Any:
    return "" if value is None else value if isinstance(value, str | int | float) else json.dumps(value)
