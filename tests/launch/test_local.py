"""Processes of this machine: how many at a time, how they end, and that none is left behind."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from segwright.launch import Ended, Job, Launcher
from segwright.launch.local import LocalLauncher
from segwright.studies.claims import Claims, is_locked

# Python 3.12 and later warn of every fork in a process with threads; the child here uses none of theirs.
pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


@pytest.fixture
def shell(tmp_path: Path) -> Callable[..., Job]:
    def make(name: str, text: str, **more: object) -> Job:
        return Job(name=name, command=("sh", "-c", text), log=tmp_path / "logs" / f"{name}.txt", **more)

    return make


def wait_for(happened: Callable[[], bool]) -> None:
    until = time.monotonic() + 30
    while not happened():
        assert time.monotonic() < until, "it never happened"
        time.sleep(0.01)


def test_each_job_ends_once_with_its_code_and_its_log(shell, tmp_path):
    jobs = [shell("good", "echo fine; echo bad >&2"), shell("bad", "exit 3"), shell("killed", "kill -9 $$")]
    with LocalLauncher(jobs=2) as launcher:
        assert isinstance(launcher, Launcher)
        ended = {one.name: one for one in launcher.run(jobs)}
    assert {name: one.code for name, one in ended.items()} == {"good": 0, "bad": 3, "killed": 137}
    assert [name for name, one in ended.items() if one.was_stopped] == ["killed"]
    assert (tmp_path / "logs" / "good.txt").read_text() == "fine\nbad\n"


def test_jobs_are_asked_for_when_there_is_room(shell):
    given: list[str] = []
    ended: list[Ended] = []

    def jobs() -> Iterator[Job]:
        for number in range(6):
            assert len(given) - len(ended) < 2
            given.append(str(number))
            yield shell(str(number), "exit 0")

    for one in LocalLauncher(jobs=2).run(jobs()):
        assert one.code == 0
        ended.append(one)
    assert sorted(one.name for one in ended) == given


def test_cores_and_gpus_are_divided(shell, tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    text = "echo $OMP_NUM_THREADS $CUDA_VISIBLE_DEVICES; sleep 0.2"
    launcher = LocalLauncher(jobs=2, gpus=(0, 1), cores=6)
    list(launcher.run([shell("a", text, gpus=1), shell("b", text, gpus=1), shell("c", text, gpus=2)]))
    told = [(tmp_path / "logs" / f"{name}.txt").read_text().split() for name in "abc"]
    assert told == [["3", "4"], ["3", "7"], ["3", "4,7"]]
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    shared = LocalLauncher(jobs=4, gpus=(0, 1))
    list(shared.run([shell(f"s{number}", text, gpus=1) for number in range(4)]))
    assert sorted((tmp_path / "logs" / f"s{n}.txt").read_text().split()[1] for n in range(4)) == ["0", "0", "1", "1"]


def test_what_runs_is_ended_with_all_that_it_started(shell, tmp_path):
    text = f"trap 'echo saved; exit 143' TERM; sleep 60 & echo $! > {tmp_path}/child; wait"
    launcher = LocalLauncher(jobs=1)
    running = launcher.run([shell("long", text), shell("never", "exit 0")])

    _Child.file = tmp_path / "child"
    signal.signal(signal.SIGALRM, _interrupted)
    signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
    with pytest.raises(KeyboardInterrupt), launcher:
        next(running)
    assert (tmp_path / "logs" / "long.txt").read_text() == "saved\n"
    assert not (tmp_path / "logs" / "never.txt").exists()
    wait_for(lambda: not _is_alive(int((tmp_path / "child").read_text())))


class _Child:
    file: Path


def _interrupted(number: int, frame: object) -> None:
    """As Ctrl-C, once the child runs."""
    if _Child.file.exists() and _Child.file.read_text().strip():
        signal.setitimer(signal.ITIMER_REAL, 0)
        raise KeyboardInterrupt


def _is_alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().split()[2] != "Z"
    except OSError:
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="Linux alone ends a process with its parent")
def test_jobs_end_with_a_killed_launcher_and_hold_their_claim_until_then(shell, tmp_path):
    job_text = (
        f"trap 'sleep 0.3; echo saved; exit 143' TERM; echo $$ > {tmp_path}/began; while true; do sleep 0.05; done"
    )

    def launch() -> None:
        descriptor = Claims(tmp_path).take("one")
        assert descriptor is not None
        list(LocalLauncher(jobs=1).run([shell("one", job_text, locks=(descriptor,))]))

    process = multiprocessing.get_context("fork").Process(target=launch)
    process.start()
    wait_for((tmp_path / "began").exists)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert is_locked(tmp_path / "one.lock")
    wait_for(lambda: not is_locked(tmp_path / "one.lock"))
    assert (tmp_path / "logs" / "one.txt").read_text() == "saved\n"


def test_a_claim_is_one_runner_s(tmp_path):
    first, second = Claims(tmp_path), Claims(tmp_path)
    assert first.take("a") is not None
    assert second.take("a") is None
    assert is_locked(tmp_path / "a.lock")
    assert not is_locked(tmp_path / "b.lock")
    first.give_back("a")
    first.give_back("a")
    assert second.take("a") is not None
    # A child that does not get the descriptor does not hold it.
    child = subprocess.Popen(["sleep", "5"])
    second.give_all_back()
    assert first.take("a") is not None
    first.give_all_back()
    child.kill()
    child.wait()
