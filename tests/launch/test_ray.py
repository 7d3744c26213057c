"""Two Ray nodes of this machine; `tests/endurance/ray_nodes.py` also loses a worker."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

ray = pytest.importorskip("ray", reason="needs the extra 'ray'")

from segwright.errors import RunError  # noqa: E402  # after the look for Ray
from segwright.launch import Job  # noqa: E402
from segwright.launch.errand import Brought, Errand  # noqa: E402
from segwright.launch.ray import RayLauncher, errand_of  # noqa: E402


def test_only_small_files_that_are_no_programs_are_sent(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("lr: 1")
    job = Job(name="a", command=("/bin/sh", "-c", str(tmp_path / "recipe.yaml"), "x" * 300), log=tmp_path / "log.txt")
    assert errand_of(job, probe=tmp_path / "probe").files == {str(tmp_path / "recipe.yaml"): b"lr: 1"}


class OneNode:
    """In place of Ray: a node that runs what it is given at once."""

    def __init__(self) -> None:
        self.answers: list[Brought] = []

    def is_initialized(self) -> bool:
        return True

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": 1.0}

    def nodes(self) -> list[dict[str, Any]]:
        return [{"Alive": True, "Resources": {"CPU": 1.0}}]

    def remote(self, **needs: object) -> Callable[[Callable[[Errand], Brought]], SimpleNamespace]:
        def given(errand: Errand, run: Callable[[Errand], Brought]) -> int:
            self.answers.append(run(errand))
            return len(self.answers) - 1

        return lambda run: SimpleNamespace(remote=partial(given, run=run))

    def wait(self, left: list[int], **more: object) -> tuple[list[int], list[int]]:
        return left, []

    def get(self, reference: int) -> Brought:
        return self.answers[reference]

    def cancel(self, *_: object, **__: object) -> None:
        pass


def test_a_node_with_another_disk_goes_on_with_what_a_stopped_try_brought_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("segwright.launch.ray.library", OneNode())
    monkeypatch.setattr("segwright.launch.ray._probe", lambda folder: folder / "not on that disk")
    run = tmp_path / "runs" / "a"
    begun = run.with_name("a.stages") / "staged.yaml"

    def words(script: str) -> tuple[str, ...]:
        return ("bash", "-ec", script, "bash", str(run), str(run.parent))

    fresh = words('mkdir "$2/a.stages"; echo 1 > "$2/a.stages/staged.yaml"; exit 143')
    again = words('cat "$2/a.stages/staged.yaml"; mkdir "$1"; echo 2 > "$1/state"; exit 137')
    last = words('cat "$1/state" "$2/a.stages/staged.yaml"; echo 3 > "$1/state"')
    codes = []
    for command in (fresh, again, last):
        more = again if command == fresh else command
        job = Job(name="a", command=command, again=more, log=tmp_path / "log.txt", results=run, begun=begun)
        with RayLauncher() as launcher:
            codes += [end.code for end in launcher.run([job])]
    assert codes == [143, 137, 0]
    assert (tmp_path / "log.txt").read_text() == "1\n2\n1\n"
    assert (run / "state").read_text() == "3\n"


@pytest.mark.timeout(300)
# These are Ray's own, of its start and its end.
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning", "ignore::FutureWarning")
def test_jobs_run_on_two_nodes_and_one_that_needs_too_much_is_refused(tmp_path: Path) -> None:
    from ray.cluster_utils import Cluster

    quiet = {"num_cpus": 1, "object_store_memory": 80 * 2**20, "node_ip_address": "127.0.0.2"}
    cluster = Cluster(initialize_head=True, head_node_args={**quiet, "include_dashboard": False})
    try:
        cluster.add_node(**quiet)
        jobs = [
            Job(name=f"job {i}", command=("bash", "-c", f"echo {i}; exit {i}"), log=tmp_path / f"{i}.txt")
            for i in range(3)
        ]
        with RayLauncher(cluster.address) as launcher:
            assert {end.name: end.code for end in launcher.run(iter(jobs))} == {f"job {i}": i for i in range(3)}
            with pytest.raises(RunError, match="no node has 9 cores"):
                list(launcher.run([Job(name="big", command=("true",), log=tmp_path / "big.txt", cpus=9)]))
        assert [job.log.read_text() for job in jobs] == ["0\n", "1\n", "2\n"]
        assert not list(tmp_path.glob(".probe-*"))
    finally:
        ray.shutdown()
        cluster.shutdown()
