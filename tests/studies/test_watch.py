"""What is seen of a study that runs."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from segwright.studies.grid import Trial, read_study, trials
from segwright.studies.state import begin_attempt, place_of, reason_in, share_done
from segwright.studies.watch import Watch


@pytest.fixture
def every(tmp_path: Path) -> tuple[Trial, ...]:
    rows = [{"name": "ce"}, {"name": "dice", "loss.formula": "dice"}]
    tree = {"base": {"data": {"path": "x"}, "training": {"epochs": 10}}, "list": rows, "seeds": [0, 1]}
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(tree))
    return trials(read_study(tmp_path / "study.yaml"))


def write(path: Path, tree: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(tree if isinstance(tree, str) else json.dumps(tree))


def test_the_table_tells_scores_shares_errors_and_the_time_left(tmp_path, every):
    out = tmp_path / "out"
    for trial, miou in ((every[0], 0.5), (every[2], 0.7)):
        run = place_of(out, trial.name).run
        write(run / "scores" / "val.json", {"definitions": {"declared": {"miou": {"estimate": miou}}}})
        write(run / "bundle" / "bundle.json", {})
    write(place_of(out, every[1].name).error, "no such thing\nexit code 2")
    run = place_of(out, every[3].name).run
    write(run / "recipe.yaml", "")
    write(run / "metrics.jsonl", json.dumps({"epoch": 4, "seconds": 120.0}) + '\n{"epoch": 5, "sec')
    assert share_done(every[3], run) == (0.4, 120.0)
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=120, color_system=None)
    with Watch(out, every, definition="declared", jobs=2, console=console) as watch:
        watch.started(every[3].name)
        console.print(watch._table())
        assert watch._seconds_left() == pytest.approx(300 * 0.6 / 2)
        watch.ended(every[0].name, seconds=100)
        assert watch._seconds_left() == pytest.approx(100 * 0.6 / 2)
    told = screen.getvalue()
    for words in ("2/2", "0.6000 ± 0.1414", "40%; no such thing", "about 2 min left"):
        assert words in told


def test_the_reason_is_the_last_error_or_the_last_line(tmp_path):
    log = tmp_path / "log.txt"
    assert reason_in(log) == "it printed nothing"
    log.write_text("segwright: no images. Give some.\nbye\n\n")
    assert reason_in(log) == "no images. Give some."
    log.write_text("Traceback\nValueError: 3\n")
    assert reason_in(log) == "ValueError: 3"


def test_the_reason_is_that_of_the_last_attempt(tmp_path):
    log = tmp_path / "logs" / "log.txt"
    begin_attempt(log)
    assert reason_in(log) == "it printed nothing"
    with log.open("a") as stream:
        stream.write("segwright: the disk is full. Free some space.\nhalf a li")
    begin_attempt(log)
    assert reason_in(log) == "it printed nothing"
    with log.open("a") as stream:
        stream.write("epoch 1\nValueError: 3\n")
    assert reason_in(log) == "ValueError: 3"
    assert log.read_text().startswith("--- begun ")
