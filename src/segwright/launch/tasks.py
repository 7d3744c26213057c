"""The scripts of a cluster: one a job, the array of them for Slurm, and a plain one for other schedulers such as OAR.

Preemption, and the end of the time limit, come as SIGTERM (https://slurm.schedmd.com/sbatch.html#OPT_signal): the task
passes it on, the command saves what it has and leaves with 143 (128 + SIGTERM), the task asks to be queued again
(https://slurm.schedmd.com/scontrol.html#OPT_requeue), and goes on from there when its turn comes.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from segwright.errors import one_line
from segwright.files import write_text
from segwright.launch import Job

WARNING_SECONDS = 120
"""How long before its time limit a task is told to save."""

MOST_RESTARTS = 100


def write_array(folder: Path, jobs: Sequence[Job], *, options: Sequence[str], at_once: int | None) -> Path:
    """Write a new folder with a script a task, the array of them, and the plain script; return the array.

    Args:
        folder: is made.
        jobs: need the same cores and GPUs.
        options: lines for `#SBATCH`.
        at_once: most tasks that run at a time.
    """
    for i, job in enumerate(jobs):
        job.log.resolve().parent.mkdir(parents=True, exist_ok=True)
        write_text(folder / f"{i}.sh", task_script(job, done=folder / f"{i}.done"))
    first, few = jobs[0], "" if at_once is None else f"%{at_once}"
    lines = [
        "--job-name=segwright",
        f"--array=0-{len(jobs) - 1}{few}",
        "--requeue",
        f"--signal=B:TERM@{WARNING_SECONDS}",
        "--open-mode=append",
        f"--output={folder}/slurm-%a.txt",
        f"--cpus-per-task={first.cpus}",
        *([f"--gres=gpu:{first.gpus}"] if first.gpus else []),
        *options,
    ]
    head = "".join(f"#SBATCH {line}\n" for line in lines)
    body = f'exec bash {shlex.quote(str(folder))}/"$SLURM_ARRAY_TASK_ID".sh\n'
    write_text(folder / "array.sh", f"#!/bin/bash\n{head}{body}")
    write_text(folder / "plain.sh", _PLAIN.format(folder=shlex.quote(str(folder)), last=len(jobs) - 1, count=len(jobs)))
    return folder / "array.sh"


def task_script(job: Job, *, done: Path) -> str:
    """The script of one task: it runs the command, passes SIGTERM on, and tells how it ended."""
    begun = [shlex.quote("" if path is None else str(path.resolve())) for path in (job.results, job.begun)]
    env = {"OMP_NUM_THREADS": str(job.cpus), **job.env}
    return _TASK.format(
        name=one_line(job.name),
        cwd=shlex.quote(str(Path.cwd())),
        exports="".join(f"export {key}={shlex.quote(value)}\n" for key, value in env.items()),
        done=shlex.quote(str(done)),
        begun=" || ".join(f"[ -e {path} ]" for path in begun),
        command=shlex.join(job.command),
        again=shlex.join(job.again or job.command),
        log=shlex.quote(str(job.log.resolve())),
        most=MOST_RESTARTS,
    )


_TASK = """#!/bin/bash
# {name}
cd {cwd} || exit 1
{exports}done={done}
[ -e "$done" ] && exit 0
start=$(date +%s)
if {begun}; then
    set -- {again}
else
    set -- {command}
fi
stopped=
child=
trap 'stopped=1; [ -n "$child" ] && kill -TERM "$child" 2>/dev/null' TERM
"$@" >>{log} 2>&1 </dev/null &
child=$!
[ -n "$stopped" ] && kill -TERM "$child" 2>/dev/null
wait "$child"
code=$?
# A signal ends the waiting, not the child.
while kill -0 "$child" 2>/dev/null; do
    wait "$child"
    code=$?
done
restarts="${{SLURM_RESTART_COUNT:-0}}"
if [ "$code" -ne 0 ] && {{ [ -n "$stopped" ] || [ "$code" -eq 143 ]; }} && [ "$restarts" -lt {most} ]; then
    # After a preemption Slurm has put it back already, and refuses a second time.
    [ -n "$SLURM_ARRAY_JOB_ID" ] && scontrol requeue "${{SLURM_ARRAY_JOB_ID}}_$SLURM_ARRAY_TASK_ID" 2>&1
    # OAR puts a job of type idempotent back that leaves with 99.
    [ -n "$OAR_JOB_ID" ] && exit 99
    exit 143
fi
printf '%s %s\\n' "$code" "$(($(date +%s) - start))" >"$done.part" && mv "$done.part" "$done"
exit "$code"
"""

_PLAIN = """#!/bin/bash
# The tasks 0 to {last}, for other schedulers than Slurm, or none:
#     bash plain.sh           all of them, one after the other; those that are done are passed over
#     bash plain.sh 3         one of them
#     oarsub --array {count} -t idempotent --checkpoint 120 --signal 15 plain.sh
#     qsub -t 1-{count} plain.sh
# and likewise for all that count the tasks of an array from 1.
place="${{OAR_ARRAY_INDEX:-${{PBS_ARRAYID:-${{PBS_ARRAY_INDEX:-${{SGE_TASK_ID:-$LSB_JOBINDEX}}}}}}}}"
if [ -n "$1" ]; then
    exec bash {folder}/"$1".sh
elif [ -n "$place" ] && [ "$place" != undefined ]; then
    exec bash {folder}/"$((place - 1))".sh
fi
for task in $(seq 0 {last}); do
    bash {folder}/"$task".sh
done
"""


def read_done(path: Path) -> tuple[int, float]:
    """Code and seconds of a task that ended; 1 where the file says neither."""
    words = path.read_text(encoding="utf-8", errors="replace").split()
    return (int(words[0]), float(words[1])) if len(words) == 2 and all(word.isdigit() for word in words) else (1, 0.0)
