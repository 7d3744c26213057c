"""Two Ray nodes of this machine; `tests/endurance/ray_nodes.py` also loses a worker."""

from __future__ import annotations

from pathlib import Path

import pytest

ray = pytest.importorskip("ray", reason="needs the extra 'ray'")

from segwright.errors import RunError  # noqa: E402  # after the look for Ray
from segwright.launch import Job  # noqa: E402
from segwright.launch.ray import RayLauncher, errand_of  # noqa: E402


def test_only_small_files_that_are_no_programs_are_sent(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("lr: 1")
    job = Job(name="a", command=("/bin/sh", "-c", str(tmp_path / "recipe.yaml"), "x" * 300), log=tmp_path / "log.txt")
    assert errand_of(job, probe=tmp_path / "probe").files == {str(tmp_path / "recipe.yaml"): b"lr: 1"}


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
