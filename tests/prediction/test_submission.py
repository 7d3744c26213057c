"""A submission holds the masks and nothing else: written, read again, and never over a file of the user's."""

from __future__ import annotations

import csv
import json
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from segwright.bundle import Bundle
from segwright.errors import DataError, OutputError, RunError
from segwright.files import digest
from segwright.models import ModelSpec, build_model
from segwright.prediction import files, submission
from segwright.prediction.choosing import open_images, sizes_of
from segwright.prediction.files import predict_files
from segwright.prediction.predictor import Predictor
from segwright.prediction.submission import form_for, read_labels_csv, read_runs_csv, stored_values, write_submission
from segwright.types import ClassSet

VALUES = (0, 128, 255)
NAMES = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=8) | st.sampled_from(
    ["a,b.png", 'say "so".png', "two\nlines", "=1+1.png", "\r", '"', "north/three.png", " "]
)


def make_predictor(info: dict) -> Predictor:
    torch.manual_seed(0)
    spec = ModelSpec(
        name="unet", in_channels=3, num_classes=3, encoder=None, arguments={"depth": 2, "width": 4},
        mean=(0.5,) * 3, std=(0.25,) * 3, scale=255.0, never_predict=(),
    )  # fmt: skip
    classes = ClassSet(("a", "b", "c"), ((10, 20, 30), (255, 0, 0), (0, 255, 0)))
    return Predictor(Bundle(build_model(spec).eval(), classes, info), device="cpu", precision="fp32", batch_size=2)


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return make_predictor({"mask_values": list(VALUES)})


@pytest.fixture
def photos(tmp_path: Path, rng: np.random.Generator) -> Path:
    folder = tmp_path / "snaps"
    folder.mkdir()
    for name in ("one, two.png", "four.jpg", "three.png"):
        Image.fromarray(rng.integers(0, 256, (12, 10, 3), dtype=np.uint8)).save(folder / name)
    return folder


@pytest.fixture
def contest(tmp_path: Path, rng: np.random.Generator) -> Path:
    """Arrays as those of the Mars homework: image and mask stacked for training, images alone for the test."""
    masks = rng.integers(0, 3, (5, 8, 12), dtype=np.uint8)
    images = rng.integers(0, 256, (5, 8, 12), dtype=np.uint8)
    tests = rng.integers(0, 256, (4, 8, 12), dtype=np.uint8)
    np.savez(tmp_path / "contest.npz", training_set=np.stack([images, masks], axis=1), test_set=tests)
    return tmp_path / "contest.npz"


def masks_of(predictor: Predictor, images: list) -> list[np.ndarray]:
    return [np.array(VALUES)[predictor.predict(image).mask] for image in images]


@given(data=st.data(), names=st.lists(NAMES, min_size=1, max_size=4, unique=True), seed=st.integers(0, 10_000))
def test_masks_come_back(data: st.DataObject, names: list[str], seed: int) -> None:
    rng = np.random.default_rng(seed)
    form = data.draw(st.sampled_from(["labels", "runs"]))
    values = data.draw(st.lists(st.integers(-(2**31), 2**31 - 1), min_size=1, max_size=5, unique=True))
    sizes = [(int(rng.integers(1, 9)), int(rng.integers(1, 9))) for _ in names]
    if form == "labels":
        sizes = sizes[:1] * len(names)
    # Rows of one class now and then, so that runs go on over the ends of rows.
    masks = [rng.integers(0, len(values), size) * rng.integers(0, 2, (size[0], 1)) for size in sizes]
    masks = [mask.astype(np.uint8) for mask in masks]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "out.csv"
        write_submission(path, zip(names, masks, strict=True), form=form, values=values)
        known = dict(zip(names, sizes, strict=True))
        read = read_labels_csv(path, size=sizes[0]) if form == "labels" else read_runs_csv(path, sizes=known)
        found = list(read)
        with path.open(newline="") as stream:  # the names are those that any reader of CSV finds
            rows = list(csv.reader(stream))[1:]
    assert [name for name, _ in found] == names
    for (_, stored), mask in zip(found, masks, strict=True):
        np.testing.assert_array_equal(stored, np.array(values)[mask])
    assert list(dict.fromkeys(row[0] for row in rows)) == names


def test_the_text_is_as_declared(tmp_path: Path) -> None:
    masks = [("0", np.array([[0, 0, 1], [1, 0, 2]], dtype=np.uint8)), ("1", np.full((2, 3), 1, dtype=np.uint8))]
    write_submission(tmp_path / "labels.csv", masks, form="labels", values=VALUES)
    write_submission(tmp_path / "runs.csv", masks, form="runs", values=VALUES)
    labels = "id,0,1,2,3,4,5\n0,0,0,128,128,0,255\n1,128,128,128,128,128,128\n"
    assert (tmp_path / "labels.csv").read_text() == labels
    assert (tmp_path / "runs.csv").read_text() == "id,class,runs\n0,0,1 2 5 1\n0,128,3 2\n0,255,6 1\n1,128,1 6\n"


def test_the_form_follows_the_sizes(tmp_path: Path) -> None:
    choose = {
        "labels": [[(64, 128)] * 3, [(128, 128)]],
        "runs": [[(64, 128), (128, 64)], [(128, 129)] * 2],
    }
    for form, cases in choose.items():
        for sizes in cases:
            assert form_for(sizes, asked="auto", file=tmp_path) == form
            assert form_for(sizes, asked="runs", file=tmp_path) == "runs"
    assert form_for([(500, 500)] * 2, asked="labels", file=tmp_path) == "labels"
    with pytest.raises(OutputError, match=r"64 x 128 and of 128 x 64 pixels.*--csv runs"):
        form_for([(64, 128), (128, 64)], asked="labels", file=tmp_path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no table of 4 labels"),
        ("id,0,1,2\n", "no table of 4 labels"),
        ("id,0,1,2,3\na,1,2,3\n", "line 2 has 3 labels for 4 pixels"),
        ("id,0,1,2,3\na,1,2,3,4\nb,1,2,x,4\n", "line 3 holds something that is no whole number"),
        ("id,0,1,2,3\na,1,2,3,4\na,1,2,3,4\n", "line 3 names 'a' for the second time"),
        ('id,0,1,2,3\n"a,1,2,3,4\n', "line 2 has a quote that does not end"),
        ("id,0,1,2,3\na\n", "line 2 does not begin with a name"),
        ("id,0,1,2,3\na,1,2,3,99999999999999999999\n", "line 2 holds something that is no whole number"),
        ("id,class\n", "no table of runs"),
        ("id,class,runs\na,1,1 5\n", "line 2 holds a run .1 5. beyond the image's 4 pixels"),
        ("id,class,runs\na,1,0 4\n", "beyond the image's 4 pixels"),
        ("id,class,runs\na,1,1 0\n", "beyond the image's 4 pixels"),
        ("id,class,runs\na,1,1 3\na,2,3 2\n", "line 3 names a pixel that has a class already"),
        ("id,class,runs\na,1,1 2 4 1\na,2,3 2\n", "line 3 names a pixel that has a class already"),
        ("id,class,runs\na,1,1 2 2 1\n", "line 2 names a pixel that has a class already"),
        ("id,class,runs\na,1,1 2\na,1,3 2\n", "line 3 gives class 1 twice"),
        ("id,class,runs\na,1,1 3\n", "line 2 ends an image whose pixel 4 has no class"),
        ("id,class,runs\na,1,1 2 3\n", "line 2 holds no pairs"),
        ("id,class,runs\na,1,\n", "line 2 holds no pairs"),
        ("id,class,runs\na,1,1 4\nb,1,1 4\na,1,1 4\n", "line 4 comes back to 'a'"),
        ("id,class,runs\nc,1,1 4\n", "names 'c', whose size is not known"),
    ],
)
def test_a_damaged_table_is_named(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "x.csv"
    path.write_text(text)
    of_runs = "class" in text
    read = read_runs_csv(path, sizes={"a": (2, 2), "b": (2, 2)}) if of_runs else read_labels_csv(path, size=(2, 2))
    with pytest.raises(DataError, match=said):
        list(read)


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "latin.csv").write_bytes("id,class,runs\n\xe9.png,1,1 4\n".encode("latin-1"))
    for path, said in ((tmp_path / "latin.csv", "no UTF-8"), (tmp_path / "none.csv", "cannot be read")):
        with pytest.raises(DataError, match=said):
            list(read_runs_csv(path, sizes=(2, 2)))


def test_a_spoiled_file_does_not_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mask = np.zeros((2, 2), dtype=np.uint8)
    for lines in (["a,0,0,0,128\n"], ["a,0,0\n"], []):
        monkeypatch.setattr(submission, "_label_lines", lambda name, stored, lines=lines: lines)
        with pytest.raises(OutputError, match="could not be read again"):
            write_submission(tmp_path / "x.csv", [("a", mask)], form="labels", values=VALUES)
    assert not list(tmp_path.iterdir())
    (tmp_path / "x.csv").write_text("of yesterday")
    with pytest.raises(OutputError, match="could not be read again"):
        write_submission(tmp_path / "x.csv", [("a", mask)], form="labels", values=VALUES)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("x.csv", "of yesterday")]


def test_mask_values_of_a_bundle() -> None:
    assert stored_values({}, num_classes=3) == (0, 1, 2)
    assert stored_values({"mask_values": None}, num_classes=2) == (0, 1)
    assert stored_values({"mask_values": [0, 255]}, num_classes=2) == (0, 255)
    for damaged in ([0], [0, 0], [0, "1"], [0, True], {"0": 1}, 7):
        with pytest.raises(RunError, match=r"mask values in bundle\.json are damaged"):
            stored_values({"mask_values": damaged}, num_classes=2)


def test_the_test_images_of_a_contest(tmp_path: Path, contest: Path, predictor: Predictor) -> None:
    with np.load(contest) as arrays:
        tests, trained = arrays["test_set"], arrays["training_set"][:, 0]
    done = predict_files(predictor, contest, out=tmp_path / "labels.csv")
    assert done.images == 4
    assert "test_set of training_set, test_set is predicted" in done.notes[0]
    assert done.notes[-1] == "labels.csv holds labels (--csv labels)"
    for out, key, images in (
        ("labels.csv", None, tests),
        ("test.csv", "test_set", tests),
        ("x.csv", "training_set", trained),
    ):
        if key is not None:
            assert len(predict_files(predictor, contest, out=tmp_path / out, key=key).notes) == 1
        read = list(read_labels_csv(tmp_path / out, size=(8, 12)))
        assert [name for name, _ in read] == [str(row) for row in range(len(images))]
        np.testing.assert_array_equal([stored for _, stored in read], masks_of(predictor, list(images)))
    done = predict_files(predictor, contest, out=tmp_path / "test.npz")
    with np.load(done.masks) as arrays:
        np.testing.assert_array_equal(np.array(VALUES)[arrays["masks"]], masks_of(predictor, list(tests)))
    with pytest.raises(DataError, match=r"no images named 'tset_set'\. Did you mean 'test_set'"):
        predict_files(predictor, contest, out=tmp_path / "y.csv", key="tset_set")


def test_rows_of_several_arrays_cannot_share_a_table(tmp_path: Path, predictor: Predictor) -> None:
    two = np.zeros((2, 6, 6), dtype=np.uint8)
    np.savez(tmp_path / "two.npz", images_train=two, images_test=two)
    with pytest.raises(DataError, match=r"several arrays of images: images_train, images_test.*--key"):
        predict_files(predictor, tmp_path / "two.npz", out=tmp_path / "out" / "x.csv")
    assert not (tmp_path / "out").exists()
    assert predict_files(predictor, tmp_path / "two.npz", out=tmp_path / "x.csv", key="images_test").images == 2
    assert predict_files(predictor, tmp_path / "two.npz", out=tmp_path / "x.npz").images == 4


def test_pictures_go_by_their_names(tmp_path: Path, photos: Path, predictor: Predictor) -> None:
    names = sorted(path.name for path in photos.iterdir())
    expected = dict(zip(names, masks_of(predictor, [photos / name for name in names]), strict=True))
    predict_files(predictor, photos, out=tmp_path / "labels.csv")
    assert dict(read_labels_csv(tmp_path / "labels.csv", size=(12, 10))).keys() == expected.keys()
    (photos / "deep").mkdir()
    Image.new("RGB", (9, 7)).save(photos / "deep" / "last.png")
    done = predict_files(predictor, photos, out=tmp_path / "runs.csv", overlays=True)
    assert done.notes[-1] == "runs.csv holds runs (--csv runs)"
    sizes = dict.fromkeys(names, (12, 10)) | {"last.png": (7, 9)}
    read = dict(read_runs_csv(done.masks, sizes=sizes))
    assert read.pop("last.png").shape == (7, 9)
    for name, stored in read.items():
        np.testing.assert_array_equal(stored, expected[name])
    assert len(list((tmp_path / "overlays").rglob("*.png"))) == 4
    table = [json.loads(line) for line in done.table.read_text().splitlines()]
    assert {row["mask"] for row in table} == {"runs.csv"}
    Image.new("RGB", (9, 7)).save(photos / "deep" / "three.png")
    predict_files(predictor, photos, out=tmp_path / "paths.csv")
    paths = [*names, "deep/last.png", "deep/three.png"]
    assert {name for name, _ in read_runs_csv(tmp_path / "paths.csv", sizes=dict.fromkeys(paths, (12, 10)) | {
        "deep/last.png": (7, 9), "deep/three.png": (7, 9)})} == set(paths)  # fmt: skip


def test_pictures_that_lie_on_their_side(tmp_path: Path, predictor: Predictor) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "in").mkdir()
    Image.new("RGB", (10, 12)).save(tmp_path / "in" / "a.jpg")
    Image.new("RGB", (12, 10)).save(tmp_path / "in" / "b.jpg", exif=exif)
    done = predict_files(predictor, tmp_path / "in", out=tmp_path / "x.csv")
    assert [name for name, _ in read_labels_csv(done.masks, size=(12, 10))] == ["a.jpg", "b.jpg"]


def test_labels_of_several_sizes_are_refused_before_the_first(
    tmp_path: Path, photos: Path, predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.new("RGB", (9, 7)).save(photos / "small.png")
    with monkeypatch.context() as patch:
        patch.setattr(Predictor, "predict_many", None)
        with pytest.raises(OutputError, match="one column a pixel"):
            predict_files(predictor, photos, out=tmp_path / "x.csv", csv="labels")
    # A header that tells another size than the picture has is noticed on the way.
    monkeypatch.setattr("segwright.prediction.files.sizes_of", lambda opened: [(7, 9)])
    with pytest.raises(OutputError, match="one column a pixel"):
        predict_files(predictor, photos, out=tmp_path / "out" / "x.csv", csv="labels")
    assert not (tmp_path / "out").exists()


def test_only_our_own_file_is_replaced(tmp_path: Path, photos: Path, predictor: Predictor) -> None:
    out = tmp_path / "x.csv"
    out.write_text("id,class\nmine,1\n")
    with pytest.raises(OutputError, match="did not write it"):
        predict_files(predictor, photos, out=out)
    assert out.read_text() == "id,class\nmine,1\n"
    out.unlink()
    predict_files(predictor, photos, out=out)
    predict_files(predictor, photos, out=out, csv="runs")
    assert out.read_text().startswith("id,class,runs\n")
    with pytest.raises(OutputError, match="inside the folder of the images"):
        predict_files(predictor, photos, out=photos / "x.csv")


def test_a_damaged_picture_is_left_out(tmp_path: Path, photos: Path, predictor: Predictor) -> None:
    (photos / "four.jpg").write_bytes(b"no picture")
    done = predict_files(predictor, photos, out=tmp_path / "x.csv")
    assert list(done.failed) == ["four"]
    assert [name for name, _ in read_labels_csv(done.masks, size=(12, 10))] == ["one, two.png", "three.png"]
    for path in photos.iterdir():
        path.write_bytes(b"no picture")
    with pytest.raises(DataError, match="no image could be predicted"):
        predict_files(predictor, photos, out=tmp_path / "out" / "y.csv")
    assert not (tmp_path / "out").exists()


def test_a_file_of_all_images_is_ours_though_one_of_them_is_damaged_since(
    tmp_path: Path, photos: Path, predictor: Predictor
) -> None:
    predict_files(predictor, photos, out=tmp_path / "x.csv")
    (photos / "four.jpg").write_bytes(b"no picture")
    for _ in range(2):
        assert predict_files(predictor, photos, out=tmp_path / "x.csv").images == 2
    lines = (tmp_path / "x.jsonl").read_text().splitlines()
    assert {json.loads(line)["written"]["x.csv"] for line in lines} == {digest(tmp_path / "x.csv")}


def test_overlays_of_a_stopped_run_are_ours(
    tmp_path: Path, photos: Path, predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, out = files.to_png, tmp_path / "x.csv"

    def stop_at_second(picture: np.ndarray) -> bytes:
        if list((tmp_path / "overlays").rglob("*.png")):
            raise KeyboardInterrupt
        return write(picture)

    monkeypatch.setattr(files, "to_png", stop_at_second)
    with pytest.raises(KeyboardInterrupt):
        predict_files(predictor, photos, out=out, overlays=True)
    monkeypatch.undo()
    first = next((tmp_path / "overlays").glob("*.png"))
    assert predict_files(predictor, photos, out=out, overlays=True).images == 3
    rows = [json.loads(line) for line in out.with_suffix(".jsonl").read_text().splitlines()]
    assert sorted(row["image"] for row in rows) == sorted(path.name for path in photos.iterdir())
    first.write_bytes(b"drawn on")
    with pytest.raises(OutputError, match="did not write it"):
        predict_files(predictor, photos, out=out, overlays=True)


def test_sizes_of_pictures_are_told_by_their_heads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "in").mkdir()
    Image.new("RGB", (10, 12)).save(tmp_path / "in" / "a.png")
    Image.new("RGB", (10, 12)).save(tmp_path / "in" / "b.png", exif=exif)
    png = (tmp_path / "in" / "b.png").read_bytes()
    start = png.index(b"eXIf") - 4
    note = png[start : start + 12 + int.from_bytes(png[start : start + 4], "big")]
    behind = png.replace(note, b"").replace(b"\0\0\0\0IEND", note + b"\0\0\0\0IEND")
    (tmp_path / "in" / "c.png").write_bytes(behind)
    opened = open_images(tmp_path / "in", key=None)
    truth = [opened.read_image(sample).shape[1:] for sample in opened.samples]
    assert [*sizes_of(opened)] == truth == [(12, 10), (10, 12), (10, 12)]
    decoded: list[str] = []
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda picture: decoded.append(Path(picture.filename).name))
    assert next(sizes_of(opened)) == (12, 10)
    assert len([*sizes_of(opened)]) == 3
    assert set(decoded) == {"c.png"}


def test_words_that_mean_nothing_are_refused(tmp_path: Path, photos: Path, predictor: Predictor) -> None:
    with pytest.raises(OutputError, match=r"no CSV that could hold runs"):
        predict_files(predictor, photos, out=tmp_path / "masks", csv="runs")
    with pytest.raises(DataError, match="no file of arrays"):
        predict_files(predictor, photos, out=tmp_path / "masks", key="test_set")
