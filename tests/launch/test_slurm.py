"""A stand-in `sbatch` runs the arrays, preempts a task where it is told to, and knows a queue."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from segwright.errors import RunError
from segwright.launch import Job
from segwright.launch.slurm import SlurmLauncher
from segwright.launch.tasks import read_done, write_array

SBATCH = """#!/bin/bash
for script; do :; done
[ -e STATE/refuse ] && { echo "Invalid partition" >&2; exit 1; }
id=$(($(cat STATE/id 2>/dev/null || echo 100) + 1))
echo $id >STATE/id
echo "$script" >>STATE/submitted
last=$(sed -n 's/^#SBATCH --array=0-\\([0-9]*\\).*/\\1/p' "$script")
[ -e STATE/idle ] && { echo "$id;here"; exit 0; }
(
    for i in $(seq 0 "$last"); do
        for restart in 0 1 2; do
            SLURM_ARRAY_JOB_ID=$id SLURM_ARRAY_TASK_ID=$i SLURM_RESTART_COUNT=$restart bash "$script" &
            task=$!
            if [ "$restart" = 0 ] && [ "$(cat STATE/preempt 2>/dev/null)" = "$i" ]; then
                until [ -e STATE/begun ]; do sleep 0.02; done
                kill -TERM $task
            fi
            wait $task
            rm STATE/requeue-"${id}_$i" 2>/dev/null || break
        done
    done
) >/dev/null 2>&1 &
echo "$id;here"
"""


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The stand-in's memory."""
    state, programs = tmp_path / "state", tmp_path / "bin"
    state.mkdir()
    programs.mkdir()
    texts = {
        "sbatch": SBATCH,
        "scontrol": '#!/bin/bash\ntouch STATE/requeue-"$2"\n',
        "squeue": '#!/bin/bash\ncat STATE/queue 2>/dev/null || { echo "Invalid job id specified" >&2; exit 1; }\n',
    }  # fmt: skip
    for name, text in texts.items():
        (programs / name).write_text(text.replace("STATE", str(state)))
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    return state


def shell(tmp_path: Path, name: str, script: str, *, again: str = "", cpus: int = 1, gpus: int = 0) -> Job:
    results = tmp_path / "runs" / name
    return Job(
        name=name,
        command=("bash", "-c", script),
        log=tmp_path / "logs" / f"{name}.txt",
        cpus=cpus,
        gpus=gpus,
        env={"GREETING": 'it\'s a "day"'},
        results=results,
        again=("bash", "-c", again) if again else (),
    )


def launcher(tmp_path: Path, **options: object) -> SlurmLauncher:
    return SlurmLauncher(tmp_path / "launch", poll_seconds=0.02, look_seconds=0.05, **options)  # type: ignore[arg-type]


def test_every_job_runs_once_and_its_code_and_words_come_back(tmp_path: Path, cluster: Path) -> None:
    (cluster / "queue").write_text("101 0\n101 1\n101 2\n")
    jobs = [shell(tmp_path, f"job {i}", f'echo "{i} $GREETING $OMP_NUM_THREADS"; exit {i}', cpus=2) for i in range(3)]
    ends = {end.name: end.code for end in launcher(tmp_path).run(iter(jobs))}
    assert ends == {"job 0": 0, "job 1": 1, "job 2": 2}
    assert [job.log.read_text() for job in jobs] == [f'{i} it\'s a "day" 2\n' for i in range(3)]


def test_jobs_of_unlike_needs_are_arrays_of_their_own(tmp_path: Path, cluster: Path) -> None:
    (cluster / "queue").write_text("101 0\n101 1\n102 0\n")
    jobs = [shell(tmp_path, name, "true", gpus=gpus) for name, gpus in (("a", 0), ("b", 1), ("c", 0))]
    with launcher(tmp_path, options=("--partition=gpu",), at_once=4) as slurm:
        assert {end.name for end in slurm.run(jobs)} == {"a", "b", "c"}
    scripts = [Path(line).read_text() for line in (cluster / "submitted").read_text().split()]
    assert ["#SBATCH --array=0-1%4\n" in text for text in scripts] == [True, False]
    assert ["#SBATCH --gres=gpu:1\n" in text for text in scripts] == [False, True]
    assert all("#SBATCH --requeue\n" in text and "#SBATCH --partition=gpu\n" in text for text in scripts)


def test_a_preempted_task_saves_is_queued_again_and_goes_on(tmp_path: Path, cluster: Path) -> None:
    (cluster / "queue").write_text("101 0\n101 1\n")
    (cluster / "preempt").write_text("1")
    run = tmp_path / "runs" / "long"
    script = f'trap "echo saved; exit 143" TERM; mkdir -p {run}; touch {cluster}/begun; sleep 30 & wait'
    jobs = [shell(tmp_path, "short", "true"), shell(tmp_path, "long", script, again=f"echo resumed; touch {run}/done")]
    ends = {end.name: end.code for end in launcher(tmp_path).run(jobs)}
    assert ends == {"short": 0, "long": 0}
    assert jobs[1].log.read_text() == "saved\nresumed\n"
    assert (run / "done").exists()


def test_a_preempted_task_that_left_nothing_but_its_stages_goes_on(tmp_path: Path, cluster: Path) -> None:
    (cluster / "queue").write_text("101 0\n")
    (cluster / "preempt").write_text("0")
    begun = tmp_path / "runs" / "long.stages" / "it's staged.yaml"
    script = f'trap "exit 143" TERM; mkdir -p {begun.parent}; touch "{begun}" {cluster}/begun; sleep 30 & wait'
    job = replace(shell(tmp_path, "long", script, again="echo resumed"), begun=begun)
    assert [end.code for end in launcher(tmp_path).run([job])] == [0]
    assert job.log.read_text() == "resumed\n"


def test_a_task_that_the_queue_forgot_is_lost(tmp_path: Path, cluster: Path) -> None:
    (cluster / "idle").touch()
    (ended,) = launcher(tmp_path).run([shell(tmp_path, "a", "true")])
    assert (ended.name, ended.code) == ("a", 137)
    assert ended.was_stopped


def test_what_is_queued_is_waited_for_and_not_submitted_again(tmp_path: Path, cluster: Path) -> None:
    (cluster / "idle").touch()
    job = shell(tmp_path, "a", "sleep 0.3; echo ran")
    assert [end.code for end in launcher(tmp_path).run([job])] == [137]
    # The queue knows it after all, and it begins now.
    (cluster / "queue").write_text("101 0\n")
    task = subprocess.Popen(["bash", str(tmp_path / "launch" / "array-1" / "0.sh")])
    assert [end.code for end in launcher(tmp_path).run([job])] == [0]
    assert task.wait() == 0
    assert len((cluster / "submitted").read_text().split()) == 1
    assert job.log.read_text() == "ran\n"


def test_what_another_call_submits_does_not_forget_what_is_queued(tmp_path: Path, cluster: Path) -> None:
    (cluster / "idle").touch()
    first, other = shell(tmp_path, "a", "true"), shell(tmp_path, "b", "true")
    for job in (first, other):
        assert [end.code for end in launcher(tmp_path).run([job])] == [137]
    (cluster / "queue").write_text("101 0\n")
    task = subprocess.Popen(["bash", "-c", f"sleep 0.2; bash {tmp_path / 'launch' / 'array-1' / '0.sh'}"])
    assert [end.code for end in launcher(tmp_path).run([first])] == [0]
    assert task.wait() == 0
    assert len((cluster / "submitted").read_text().split()) == 2


def test_nothing_is_submitted_again_while_the_queue_does_not_answer(tmp_path: Path, cluster: Path) -> None:
    (cluster / "idle").touch()
    job = shell(tmp_path, "a", "true")
    list(launcher(tmp_path).run([job]))
    (tmp_path / "bin" / "squeue").write_text("#!/bin/bash\necho 'Socket timed out' >&2; exit 1\n")
    with pytest.raises(RunError, match=r"'squeue' does not answer.*a is queued already.*[Tt]ry again"):
        list(launcher(tmp_path).run([job]))
    assert len((cluster / "submitted").read_text().split()) == 1


def test_a_second_start_of_a_task_that_ended_does_nothing(tmp_path: Path) -> None:
    job = shell(tmp_path, "a", "echo ran")
    write_array(tmp_path / "array", [job], options=(), at_once=None)
    for _ in range(2):
        subprocess.run(["bash", str(tmp_path / "array" / "0.sh")], check=True)
    assert job.log.read_text() == "ran\n"
    assert read_done(tmp_path / "array" / "0.done")[0] == 0


@pytest.mark.parametrize(
    ("words", "env", "ran"),
    [([], {}, "ab"), (["1"], {}, "b"), ([], {"OAR_ARRAY_INDEX": "2", "OAR_JOB_ID": "7"}, "b")],
)
def test_the_plain_script_runs_all_or_one(tmp_path: Path, words: list[str], env: dict[str, str], ran: str) -> None:
    jobs = [shell(tmp_path, name, f"echo {name}") for name in "ab"]
    write_array(tmp_path / "array", jobs, options=(), at_once=None)
    subprocess.run(["bash", str(tmp_path / "array" / "plain.sh"), *words], env={**os.environ, **env}, check=True)
    assert "".join(job.name for job in jobs if job.log.exists()) == ran


def test_oar_queues_a_stopped_task_again(tmp_path: Path) -> None:
    write_array(tmp_path / "array", [shell(tmp_path, "a", "exit 143")], options=(), at_once=None)
    words = ["bash", str(tmp_path / "array" / "plain.sh")]
    env = {**os.environ, "OAR_ARRAY_INDEX": "1", "OAR_JOB_ID": "7"}
    assert subprocess.run(words, env=env, check=False).returncode == 99
    assert not (tmp_path / "array" / "0.done").exists()


def test_a_cluster_that_refuses_is_quoted(tmp_path: Path, cluster: Path) -> None:
    (cluster / "refuse").touch()
    with pytest.raises(RunError, match="Invalid partition"):
        list(launcher(tmp_path).run([shell(tmp_path, "a", "true")]))
    assert not (tmp_path / "launch" / "queued.json").exists()


def test_without_slurm_the_plain_script_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RunError, match=r"plain\.sh"):
        list(launcher(tmp_path).run([shell(tmp_path, "a", "true")]))


@pytest.mark.parametrize("option", ["partition=gpu", "--x\n#SBATCH --y", ""])
def test_what_is_no_option_is_refused(tmp_path: Path, option: str) -> None:
    with pytest.raises(RunError, match="no option"):
        launcher(tmp_path, options=(option,))


def test_the_memory_of_what_was_submitted_is_json(tmp_path: Path, cluster: Path) -> None:
    list(launcher(tmp_path).run([shell(tmp_path, "a", "true")]))
    (tree,) = json.loads((tmp_path / "launch" / "queued.json").read_text())
    assert (tree["name"], tree["array"], tree["index"]) == ("a", "101", 0)
