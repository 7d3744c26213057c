"""`segwright pseudo`: sure labels of new images on the training side, and no way around the validation side."""

from __future__ import annotations

import csv
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from segwright import verbs
from segwright.cli import main
from segwright.data.sources import open_source
from segwright.data.synthetic import terrain_stack, write_terrain
from segwright.errors import DataError, OutputError, RunError, SplitError
from segwright.files import read_image, read_json, read_raw_mask, write_json
from segwright.recipe import make_recipe, read_recipe, write_recipe

TINY = {
    "model.name": "unet", "model.encoder": None, "model.arguments": {"width": 4, "depth": 2}, "data.audit": False,
    "training.batch_size": 4, "data.split.kind": "random", "data.split.val": 0.25, "data.split.groups": r"(.*)",
}  # fmt: skip


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teacher of twelve photos, five other photos, and one that cannot be read."""
    root = tmp_path_factory.mktemp("project")
    write_terrain(root / "photos", images=12, size=(32, 48), layout="pairs")
    verbs.train(root / "photos", name="teacher", out=root / "runs", epochs=2, overrides=TINY, progress=False)
    write_terrain(root / "others", images=5, size=(32, 48), seed=7, layout="pairs")
    shutil.copytree(root / "others" / "images", root / "new")
    for number, path in enumerate(sorted((root / "new").iterdir())):
        path.rename(path.with_name(f"new_{number}{path.suffix}"))
    (root / "new" / "torn.png").write_bytes(b"\x89PNG torn")
    return root


def call(monkeypatch: pytest.MonkeyPatch, *words: str | Path) -> int:
    monkeypatch.setattr(sys, "argv", ["segwright", *map(str, words)])
    with pytest.raises(SystemExit) as end:
        main()
    return int(end.value.code or 0)


def rows_of(out: Path) -> list[dict[str, str]]:
    with (out / "manifest.csv").open() as stream:
        return list(csv.DictReader(stream))


def test_only_the_training_side_grows_and_a_student_is_trained(project, tmp_path, monkeypatch, capsys):
    out, teacher = tmp_path / "out", project / "runs" / "teacher"
    words = ["--confidence", "0.3", "--least-share", "0.01"]
    assert call(monkeypatch, "pseudo", teacher, project / "new", "-o", out, *words) == 0
    told = capsys.readouterr().out
    assert "5 images labelled, beside 12 that people have labelled" in told
    assert "1 left out" in told
    assert "torn" in (out / "left-out.csv").read_text()
    assert (out / "contact-sheet.png").is_file()
    rows, split = rows_of(out), read_json(teacher / "split.json")
    assert [row["split"] for row in rows if not row["original"]].count("val") == len(split["val"])
    labelled = [row for row in rows if row["original"]]
    assert {row["split"] for row in labelled} == {"train"}
    predictor = verbs.load(teacher)
    for row in labelled:
        image, mask = read_image(out / row["image"]), read_raw_mask(out / row["mask"])
        np.testing.assert_array_equal(image, read_image(Path(row["original"])))
        prediction = predictor.predict(image, probs=True)
        sure = prediction.probs.max(axis=0)
        np.testing.assert_array_equal(mask, np.where(sure >= 0.3, prediction.mask, 255))
        assert float(row["share_sure"]) == pytest.approx(float((sure >= 0.3).mean()), abs=1e-4)
        assert float(row["mean_confidence"]) == pytest.approx(float(sure.mean()), abs=1e-3)
    student = verbs.train(out / "recipe.yaml", name="student", out=tmp_path, epochs=1, progress=False)
    learnt, kept = read_json(student / "split.json"), {f"images/{name}" for name in split["val"]}
    assert set(learnt["val"]) == kept
    assert len(learnt["train"]) == len(split["train"]) + 5
    before, after = read_recipe(teacher / "recipe.yaml"), read_recipe(student / "recipe.yaml")
    assert after.model == before.model
    assert open_source(out / "data.yaml").classes.names == open_source(project / "photos").classes.names


def test_a_student_starts_from_what_its_teacher_started_from(project, tmp_path, monkeypatch, capsys):
    teacher = project / "runs" / "teacher"
    again = verbs.train(
        project / "photos", name="again", out=tmp_path, epochs=1, start_from=teacher, overrides=TINY, progress=False
    )
    words = ["--confidence", "0.3", "--least-share", "0.01"]
    assert call(monkeypatch, "pseudo", again, project / "new", "-o", tmp_path / "out", *words) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("Train:")]
    recipe, start = line.removeprefix("Train:   segwright train ").split(" --from ")
    student = verbs.train(recipe, name="student", out=tmp_path, epochs=1, start_from=start, progress=False)
    assert "weights of" in (student / "log.txt").read_text()


def test_a_stricter_teacher_keeps_less_and_at_last_nothing(project, tmp_path):
    teacher, shares = project / "runs" / "teacher", []
    for confidence in (0.2, 0.4):
        out = tmp_path / str(confidence)
        done = verbs.pseudo(teacher, project / "new", out=out, confidence=confidence, least_share=0.0)
        shares.append([float(row["share_sure"]) for row in rows_of(out) if row["original"]])
        assert done.taken == 5
    assert all(loose >= strict for loose, strict in zip(*shares, strict=True))
    assert sum(shares[0]) > sum(shares[1])
    with pytest.raises(DataError, match="sure of 0% of its pixels"):
        verbs.pseudo(teacher, project / "new", out=tmp_path / "none", confidence=1.0, least_share=0.5)
    assert not list(tmp_path.glob("*none*"))


def test_a_picture_of_the_validation_side_is_refused_and_one_of_the_training_side_left_out(project, tmp_path):
    teacher = project / "runs" / "teacher"
    split, new = read_json(teacher / "split.json"), tmp_path / "new"
    shutil.copytree(project / "new", new)
    place = {path.stem: path for path in (project / "photos" / "images").iterdir()}
    shutil.copy(place[split["train"][0]], new / "again.png")
    shutil.copy(new / "new_0.png", new / "new_0b.png")
    done = verbs.pseudo(teacher, new, out=tmp_path / "a", confidence=0.2, least_share=0.0)
    assert done.taken == 5
    assert split["train"][0] in done.left_out["again"]
    assert "same picture as 'new_0'" in done.left_out["new_0b"]
    shutil.copy(place[split["val"][0]], new / "secret.png")
    with pytest.raises(SplitError, match=f"'secret' is '{split['val'][0]}' on the val side"):
        verbs.pseudo(teacher, new, out=tmp_path / "b")
    (new / "secret.png").unlink()
    (new / "new_1.png").rename(new / f"{split['val'][0]}.png")
    with pytest.raises(SplitError, match="belongs to group"):
        verbs.pseudo(teacher, new, out=tmp_path / "b")
    assert not (tmp_path / "b").exists()


def test_what_cannot_be_joined_is_refused(project, tmp_path):
    teacher, new = project / "runs" / "teacher", project / "new"
    with pytest.raises(OutputError, match="there already"):
        verbs.pseudo(teacher, new, out=tmp_path)
    with pytest.raises(OutputError, match="inside the images"):
        verbs.pseudo(teacher, new, out=new / "out")
    shutil.copytree(teacher / "bundle", tmp_path / "bare")
    with pytest.raises(RunError, match="outside of a run"):
        verbs.pseudo(tmp_path / "bare", new, out=tmp_path / "out")
    done = verbs.pseudo(tmp_path / "bare", new, out=tmp_path / "out", join=teacher, confidence=0.2, least_share=0.0)
    assert (done.taken, done.originals) == (5, 12)
    assert len(done.notes) == 1
    assert f"nothing tells which images {tmp_path / 'bare'} has learnt from" in done.notes[0]
    tree = read_json(tmp_path / "bare" / "bundle.json")
    info = {**tree["info"], "score": None, "note": "trained on its validation images too"}
    write_json(tmp_path / "bare" / "bundle.json", {**tree, "info": info})
    with pytest.raises(RunError, match=r"bare: is a refit, so it may have learnt from what .*teacher is judged by"):
        verbs.pseudo(tmp_path / "bare", new, out=tmp_path / "more", join=teacher)
    other = tmp_path / "other"
    shutil.copytree(teacher, other)
    facts = read_json(other / "images.json")
    write_json(other / "images.json", {name: [image, mask, "train"] for name, (image, mask, _) in facts.items()})
    with pytest.raises(RunError, match="has learnt from 3 images"):
        verbs.pseudo(other, new, out=tmp_path / "more", join=teacher)
    (other / "images.json").unlink()
    with pytest.raises(RunError, match=r"has no images\.json, so nothing tells"):
        verbs.pseudo(teacher, new, out=tmp_path / "more", join=other)


def test_unlabelled_images_of_an_archive_join_those_with_masks(tmp_path):
    images, masks = terrain_stack(12, size=(32, 48))
    np.savez(tmp_path / "stack.npz", training_set=images[:8], training_mask=masks[:8], test_set=images[8:])
    changes = {key: value for key, value in TINY.items() if key != "data.split.groups"}
    run = verbs.train(tmp_path / "stack.npz", name="run", out=tmp_path, epochs=1, overrides=changes, progress=False)
    done = verbs.pseudo(run, tmp_path / "stack.npz", out=tmp_path / "out", confidence=0.1, key="test_set")
    assert (done.taken, done.originals) == (4, 8)
    recipe = read_recipe(tmp_path / "out" / "recipe.yaml")
    write_recipe(tmp_path / "again.yaml", make_recipe(recipe.as_dict()))
    assert recipe.data.path == str((tmp_path / "out" / "data.yaml").resolve())


def test_students_and_runs_on_copies_submit_the_values_of_the_first_masks(tmp_path):
    images, masks = terrain_stack(12, size=(32, 48))
    stored = np.where(masks > 0, 255, 0).astype(np.uint8)
    np.savez(tmp_path / "stack.npz", images=images[:8], masks=stored[:8])
    np.savez(tmp_path / "for student.npz", images=images[8:10])
    np.savez(tmp_path / "for student of a student.npz", images=images[10:])
    changes = {key: value for key, value in TINY.items() if key != "data.split.groups"}
    source, run = tmp_path / "stack.npz", tmp_path
    for name in ("teacher", "student", "student of a student", "copies"):
        if name == "copies":
            source = verbs.augment(run / "recipe.yaml", out=tmp_path / "more", count=2, progress=False).card
            changes = {key: value for key, value in TINY.items() if not key.startswith("data.split")}
        elif name != "teacher":
            out = tmp_path / f"for {name}"
            verbs.pseudo(run, tmp_path / f"for {name}.npz", out=out, confidence=0.1)
            source, changes = out / "recipe.yaml", {}
        run = verbs.train(source, name=name, out=tmp_path, epochs=1, overrides=changes, progress=False)
        assert verbs.load(run).info["mask_values"] == [0, 255], name
    verbs.predict(run, tmp_path / "for student.npz", out=tmp_path / "answer.csv", csv="labels")
    _, *lines = (tmp_path / "answer.csv").read_text().split()
    assert {value for line in lines for value in line.split(",")[1:]} <= {"0", "255"}
