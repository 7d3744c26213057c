"""What a node does with a job, on our disk and on one of its own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from segwright.launch.errand import Errand, carry_out, pack, scratch_of, unpack


def errand(tmp_path: Path, script: str, *, again: str = "", shared: bool = True, staged: bool = False) -> Errand:
    probe = tmp_path / "probe"
    if shared:
        probe.touch()
    words = ("bash", "-c", script, "bash", str(tmp_path / "recipe.yaml"), "--out", str(tmp_path / "runs"))
    return Errand(
        name="job",
        command=words,
        again=("bash", "-c", again) if again else (),
        env={"GREETING": "hello"},
        cwd=tmp_path,
        log=tmp_path / "log.txt",
        results=tmp_path / "runs" / "a",
        begun=tmp_path / "runs" / "a.stages" / "staged.yaml" if staged else None,
        probe=probe,
        files={str(tmp_path / "recipe.yaml"): b"lr: 1"},
    )


def test_on_our_disk_the_command_runs_as_it_is(tmp_path: Path) -> None:
    brought = carry_out(errand(tmp_path, 'echo "$GREETING $1"; pwd; exit 3'))
    assert (brought.code, brought.archive, brought.log) == (3, None, "")
    assert (tmp_path / "log.txt").read_text().splitlines() == [f"hello {tmp_path}/recipe.yaml", str(tmp_path)]


def test_a_second_try_goes_on(tmp_path: Path) -> None:
    (tmp_path / "runs" / "a").mkdir(parents=True)
    assert carry_out(errand(tmp_path, "exit 1", again="echo resumed")).code == 0
    assert (tmp_path / "log.txt").read_text() == "resumed\n"


def test_what_is_still_in_its_stages_goes_on(tmp_path: Path) -> None:
    script = f"echo begun; mkdir -p {tmp_path}/runs/a.stages; touch {tmp_path}/runs/a.stages/staged.yaml"
    sent = errand(tmp_path, script, again="echo resumed", staged=True)
    assert [carry_out(sent).code for _ in range(2)] == [0, 0]
    assert (tmp_path / "log.txt").read_text() == "begun\nresumed\n"


def test_on_another_disk_files_are_sent_and_results_come_back(tmp_path: Path) -> None:
    script = 'cat "$1"; mkdir -p "$3/a/scores"; echo 0.5 > "$3/a/scores/val.json"; echo " in $3"'
    sent = errand(tmp_path, script, shared=False)
    brought = carry_out(sent)
    assert brought.code == 0
    assert brought.log == f"lr: 1 in {scratch_of(sent)}/out\n"
    assert not scratch_of(sent).exists()
    assert not (tmp_path / "runs").exists()
    assert brought.archive is not None
    unpack(brought.archive, sent.folders)
    assert (tmp_path / "runs/a/scores/val.json").read_text() == "0.5\n"
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["a"]


def test_on_another_disk_stages_go_on_and_come_back_with_the_results(tmp_path: Path) -> None:
    script = 'mkdir "$3/a.stages" && touch "$3/a.stages/staged.yaml" "$3/mine"; exit 143'
    sent = errand(tmp_path, script, shared=False, staged=True)
    brought = carry_out(sent)
    assert (brought.code, brought.archive is None) == (143, False)
    unpack(brought.archive or b"", sent.folders)
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["a.stages"]
    assert (tmp_path / "runs/a.stages/staged.yaml").is_file()
    # A worker was lost that had begun, and the node is found again.
    (scratch_of(sent) / "out" / "a.stages").mkdir(parents=True)
    (scratch_of(sent) / "out" / "a.stages" / "staged.yaml").touch()
    again = ("bash", "-c", 'mkdir "$1"; echo whole > "$1/x"', "bash", str(tmp_path / "runs" / "a"))
    brought = carry_out(replace(sent, again=again))
    unpack(brought.archive or b"", sent.folders)
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["a", "a.stages"]
    assert (tmp_path / "runs/a/x").read_text() == "whole\n"


def test_another_disk_asks_for_the_half_that_stands_on_ours_and_goes_on_with_it(tmp_path: Path) -> None:
    (tmp_path / "runs" / "a").mkdir(parents=True)
    (tmp_path / "runs" / "a" / "steps").write_text("1 2 ")
    words = ("bash", "-c", 'cat "$1/steps"; echo 3 >> "$1/steps"', "bash", str(tmp_path / "runs" / "a"))
    sent = replace(errand(tmp_path, "", shared=False), command=words, again=words, half=True)
    assert carry_out(sent).asks
    assert not scratch_of(sent).exists()
    sent = replace(sent, sent=pack(sent.folders))
    # What a lost worker has left on the node is further on than what was sent.
    (scratch_of(sent) / "out" / "a").mkdir(parents=True)
    (scratch_of(sent) / "out" / "a" / "steps").write_text("1 2 2.5 ")
    for said in ("1 2 2.5 ", "1 2 "):
        brought = carry_out(sent)
        assert (brought.code, brought.asks, brought.log) == (0, False, said)
    unpack(brought.archive or b"", sent.folders)
    assert (tmp_path / "runs" / "a" / "steps").read_text() == "1 2 3\n"


def test_our_own_disk_needs_no_half(tmp_path: Path) -> None:
    (tmp_path / "runs" / "a").mkdir(parents=True)
    sent = replace(errand(tmp_path, "exit 1", again="echo resumed"), half=True)
    assert carry_out(sent).asks is False
    assert (tmp_path / "log.txt").read_text() == "resumed\n"


def test_a_node_without_our_python_takes_its_own(tmp_path: Path) -> None:
    sent = replace(errand(tmp_path, "", shared=False), command=("/nowhere/bin/python3.11", "-c", "print(6 * 7)"))
    assert carry_out(sent).log == "42\n"


def test_a_signal_is_told_as_a_shell_does(tmp_path: Path) -> None:
    assert carry_out(errand(tmp_path, "kill -KILL $$")).code == 137


def test_results_replace_an_earlier_part_of_them_and_links_stay_out(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "a").write_text("new")
    (tmp_path / "run" / "link").symlink_to("/etc/passwd")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "b").touch()
    archive = pack([tmp_path / "run", tmp_path / "other"])
    (tmp_path / "there" / "run").mkdir(parents=True)
    (tmp_path / "there" / "run" / "old").touch()
    unpack(archive, [tmp_path / "there" / "run"])
    assert [str(path.relative_to(tmp_path / "there")) for path in (tmp_path / "there").rglob("*")] == ["run", "run/a"]


def test_a_job_that_is_given_up_is_asked_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import subprocess

    def interrupted(self: object, timeout: float | None = None) -> int:
        if timeout is None:
            while not (tmp_path / "begun").exists():
                pass
            raise KeyboardInterrupt
        return real(self, timeout)

    real = subprocess.Popen.wait
    monkeypatch.setattr(subprocess.Popen, "wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        carry_out(errand(tmp_path, f'trap "echo saved; exit 143" TERM; touch {tmp_path}/begun; sleep 20 & wait'))
    assert (tmp_path / "log.txt").read_text() == "saved\n"
