"""The runner, with programs that only pretend to train: kills, failures, two runners at once."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from segwright.augment import PRESETS, Policy
from segwright.cli import main
from segwright.data import offline
from segwright.data.synthetic import write_terrain
from segwright.errors import DataError, OutputError, RunStopped
from segwright.launch import Ended, Job
from segwright.launch.local import LocalLauncher
from segwright.launch.tasks import task_script
from segwright.studies import runner
from segwright.studies.claims import Claims
from segwright.studies.grid import Study, read_study, trials
from segwright.studies.runner import Outcome, run_study
from segwright.studies.state import place_of, score_of, state_of, why_failed

# Python 3.12 and later warn of every fork in a process with threads; the child here uses none of theirs.
pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
PRETEND = Path(__file__).with_name("pretend.py")
FORK = multiprocessing.get_context("fork")


@pytest.fixture(autouse=True)
def _pretend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "PROGRAM", (sys.executable, "-I", "-S", str(PRETEND)))
    monkeypatch.setattr(runner, "LOOK_SECONDS", 0.05)
    monkeypatch.setattr("segwright.launch.local.LOOK_SECONDS", 0.01)


def study_of(folder: Path, *formulas: str, **more: object) -> Study:
    (folder / "photos").mkdir(parents=True, exist_ok=True)
    rows = [{"name": formula, "loss.formula": formula} for formula in formulas]
    tree = {"name": "pretended", "base": {"data": {"path": "photos"}}, "list": rows, "seeds": [0, 1], **more}
    (folder / "study.yaml").write_text(yaml.safe_dump(tree))
    return read_study(folder / "study.yaml")


def go(study: Study, out: Path, **more: bool) -> Outcome:
    return run_study(study, out, launcher=LocalLauncher(jobs=2), jobs=2, progress=False, **more)


def scores(study: Study, out: Path) -> dict[str, float | None]:
    return {t.name: score_of(place_of(out, t.name).run, definition="declared") for t in trials(study)}


def traced(out: Path) -> list[str]:
    return [line.rpartition(" ")[0] for line in (out / "trace.txt").read_text().splitlines()]


def test_every_run_is_trained_once_and_none_again(tmp_path, capsys):
    study = study_of(tmp_path, "ce", "dice")
    done = run_study(study, tmp_path / "out", launcher=LocalLauncher(jobs=2), jobs=2)
    assert (done.done, done.failed) == (4, 0)
    assert "[4/4]" in capsys.readouterr().out
    assert sum("begins" in line for line in traced(tmp_path / "out")) == 4
    go(study, tmp_path / "out")
    assert sum("begins" in line for line in traced(tmp_path / "out")) == 4
    # A changed row is a new run, and the others stay.
    changed = study_of(tmp_path, "ce", "focal")
    assert go(changed, tmp_path / "out").done == 4
    assert sum("begins" in line for line in traced(tmp_path / "out")) == 6


def test_a_run_that_fails_leaves_its_error_and_the_others_go_on(tmp_path):
    out, study = tmp_path / "out", study_of(tmp_path, "fails", "ce")
    done = go(study, out)
    assert (done.done, done.failed) == (2, 2)
    failed = [trial.name for trial in trials(study) if trial.row == "fails"]
    assert {state_of(out, name) for name in failed} == {"failed"}
    assert why_failed(out, failed[0]) == "the loss is no number. Lower the rate."
    before = traced(out)
    go(study, out)
    assert traced(out) == before
    assert go(study, out, retry=True).failed == 2
    assert len(traced(out)) == len(before) + 2


def test_a_run_that_is_killed_goes_on_but_not_for_ever(tmp_path):
    out, study = tmp_path / "out", study_of(tmp_path, "dies", "doomed", "ce")
    done = go(study, out)
    assert (done.done, done.failed) == (4, 2)
    names = {trial.row: trial.name for trial in trials(study) if trial.seed == 0}
    own = [line.partition(" ")[2] for line in traced(out) if line.startswith(names["dies"])]
    assert own == ["begins", "step 1", "step 2", "step 3", "resumes", "step 4", "step 5", "step 6"]
    assert "signal 9 ended it 3 times" in why_failed(out, names["doomed"])


def test_a_run_that_a_lost_machine_left_in_its_stages_goes_on_on_the_next_one(tmp_path):
    class Losing(LocalLauncher):
        """Starts what was killed again by itself, as Ray and Slurm do."""

        def run(self, jobs):
            for job in jobs:
                script = task_script(job, done=tmp_path / "done")
                assert subprocess.run(["bash", "-c", script], check=False).returncode == 137
                (tmp_path / "done").unlink()
                yield Ended(job.name, subprocess.run(["bash", "-c", script], check=False).returncode, 0.0)

    out, study = tmp_path / "out", study_of(tmp_path, "staged", seeds=[0])
    done = run_study(study, out, launcher=Losing(), progress=False)
    assert (done.done, done.failed) == (1, 0)
    assert [line.split()[1] for line in traced(out)] == ["resumes", *["step"] * 6]


def test_a_study_that_is_killed_is_completed_with_the_same_numbers(tmp_path, monkeypatch):
    unbroken, broken = study_of(tmp_path / "a", "ce", "dice"), study_of(tmp_path / "b", "ce", "dice")
    go(unbroken, tmp_path / "a" / "out")
    monkeypatch.setenv("PRETEND_STEP_SECONDS", "0.15")
    out = tmp_path / "b" / "out"
    for lines in (4, 14):
        process = FORK.Process(target=go, args=(broken, out))
        process.start()
        until = time.monotonic() + 30
        while not (out / "trace.txt").exists() or len(traced(out)) < lines:
            assert time.monotonic() < until, "the study does not go on"
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
        process.join()
    done = go(broken, out)
    assert done.done == 4
    assert scores(broken, out) == scores(unbroken, tmp_path / "a" / "out")
    begun = Counter(line.split()[0] for line in traced(out) if "begins" in line)
    assert begun == {trial.name: 1 for trial in trials(broken)}
    # What a killed study had started saved itself, so that not even a step was done twice.
    assert max(Counter(line for line in traced(out) if "step" in line).values()) == 1


def test_two_runners_share_the_work(tmp_path, monkeypatch):
    monkeypatch.setenv("PRETEND_STEP_SECONDS", "0.05")
    out, study = tmp_path / "out", study_of(tmp_path, "ce", "dice", "focal", "jaccard")
    others = [FORK.Process(target=go, args=(study, out)) for _ in range(2)]
    for process in others:
        process.start()
    for process in others:
        process.join()
    assert [process.exitcode for process in others] == [0, 0]
    assert {state_of(out, trial.name) for trial in trials(study)} == {"done"}
    steps = Counter(traced(out))
    assert set(steps.values()) == {1}
    assert len(steps) == 8 * (1 + 6)


def test_what_another_program_trains_is_waited_for(tmp_path, monkeypatch):
    """A claim that a killed study left to a process which has not ended."""
    out, study = tmp_path / "out", study_of(tmp_path, "ce", seeds=[0])
    claims = Claims(out / "claims")
    name = trials(study)[0].name
    assert claims.take(name) is not None
    process = FORK.Process(target=_held, args=(0.4,))
    process.start()
    claims.give_all_back()
    assert Claims(out / "claims").take(name) is None
    began = time.monotonic()
    assert go(study, out).done == 1
    assert time.monotonic() - began > 0.2
    process.join()


def _held(seconds: float) -> None:
    time.sleep(seconds)


def test_a_signal_ends_the_study_and_saves_what_runs(tmp_path, monkeypatch):
    before = signal.getsignal(signal.SIGTERM)  # Ray leaves one of its own in the process
    monkeypatch.setenv("PRETEND_STEP_SECONDS", "0.2")
    out, study = tmp_path / "out", study_of(tmp_path, "ce", "dice")

    class Impatient(LocalLauncher):
        def run(self, jobs):
            def stopping(every: list[Job]):
                for number, job in enumerate(every):
                    if number == 1:
                        while not (out / "trace.txt").exists():
                            time.sleep(0.01)
                        os.kill(os.getpid(), signal.SIGTERM)
                    yield job

            return super().run(stopping(jobs))

    with pytest.raises(RunStopped) as stop:
        run_study(study, out, launcher=Impatient(jobs=2), jobs=2, progress=False)
    assert stop.value.signal_number == signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) is before
    assert state_of(out, trials(study)[0].name) == "half"
    assert go(study, out).done == 4
    assert max(Counter(line for line in traced(out) if "step" in line).values()) == 1


def test_copies_that_cannot_be_made_fail_their_runs_alone(tmp_path, monkeypatch):
    rows = [{"name": "plain"}, {"name": "more", "copies": {"count": 3, "only_classes": ["rock"]}}]
    out, study = tmp_path / "out", study_of(tmp_path, list=rows)
    done = go(study, out)
    assert (done.done, done.failed) == (2, 2)
    failed = [trial for trial in trials(study) if trial.row == "more"]
    assert len({trial.copies_name for trial in failed}) == 1
    assert why_failed(out, failed[1].name).startswith("no copies: ")


def test_copies_are_changed_as_their_row_says_and_not_as_the_training_does(tmp_path, monkeypatch):
    base = {"data": {"path": "photos"}, "augment": {"preset": "strong", "rotate_degrees": 90, "elastic_px": 9}}
    rows = [{"name": "more", "copies": {"count": 3, "preset": "light", "overrides": {"augment.noise": 0.2}}}]
    study, out = study_of(tmp_path, base=base, list=rows, seeds=[0]), tmp_path / "out"
    assert go(study, out).failed == 1  # pretend makes no copies
    (trial,) = trials(study)
    (tmp_path / "photos").rmdir()
    write_terrain(tmp_path / "photos", images=8, size=(32, 48))
    place = place_of(out, trial.copies_name)
    command = runner._augment_words(trial, recipe=place.recipe, folder=tmp_path / "copies")
    made: list[Policy] = []
    real = offline.write_copies

    def write_copies(*given: object, policy: Policy, **more: object) -> object:
        made.append(policy)
        return real(*given, policy=policy, **more)

    monkeypatch.setattr(offline, "write_copies", write_copies)
    monkeypatch.setattr(sys, "argv", ["segwright", *command[len(runner.PROGRAM) :]])
    with pytest.raises(SystemExit) as end:
        main()
    assert not end.value.code
    assert made == [replace(PRESETS["light"], noise=0.2)]
    assert len(list((tmp_path / "copies" / "images").rglob("*.copy*"))) == 3


def test_the_reason_is_that_of_the_last_try(tmp_path):
    out, study = tmp_path / "out", study_of(tmp_path, "doomed", seeds=[0])
    (trial,) = trials(study)
    log = place_of(out, trial.name).log
    log.parent.mkdir(parents=True)
    log.write_text("segwright: there are no images. Give some.\n")
    assert go(study, out).failed == 1
    assert why_failed(out, trial.name) == "signal 9 ended it 3 times; it last said: it printed nothing"


def test_what_cannot_be_run_is_told_first(tmp_path):
    study = study_of(tmp_path, "ce")
    go(study, tmp_path / "out")
    other = study_of(tmp_path, "ce", name="another")
    with pytest.raises(OutputError, match="'pretended', and this one is 'another'"):
        go(other, tmp_path / "out")
    (tmp_path / "photos").rmdir()
    with pytest.raises(DataError, match="relative to the study file"):
        go(study, tmp_path / "out")
