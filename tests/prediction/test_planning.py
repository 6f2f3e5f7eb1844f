"""What a prediction would harm is refused before it starts; one that was interrupted goes on."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segweave.errors import InputError, UsageError
from segweave.formats import find_images
from segweave.prediction import predict_files
from tests.prediction.tiny import (
    VOLUME,
    by_brightness,
)


def test_existing_results_are_kept_unless_forced(images, tmp_path):
    out = tmp_path / "out"
    (out / "overlays").mkdir(parents=True)
    for name in ("d.png", "overlays/c.png"):
        (out / name).write_bytes(b"mine")
        with pytest.raises(UsageError, match=f"{name}.*\n.*force"):
            predict_files(by_brightness((16, 16)), images, out)
        assert [p.name for p in out.rglob("*") if p.is_file()] == [name.split("/")[-1]]
        assert (out / name).read_bytes() == b"mine"
        (out / name).unlink()
    (out / "d.png").write_bytes(b"mine")
    predict_files(by_brightness((16, 16)), images, out, force=True)
    assert (out / "d.png").read_bytes() != b"mine"


def test_an_input_is_never_replaced(images):
    for force in (False, True):
        with pytest.raises(UsageError, match="which is an input"):
            predict_files(by_brightness((16, 16)), images, images, force=force)


def test_two_images_of_one_name(images, tmp_path):
    (images / "d.jpg").write_bytes((images / "d.png").read_bytes())
    with pytest.raises(UsageError, match="separate folders"):
        predict_files(by_brightness((16, 16)), images, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_is_missing_is_said_before_anything_is_written(images, tmp_path):
    with pytest.raises(InputError, match="nothing there"):
        predict_files(by_brightness((16, 16)), [images, tmp_path / "no.nii"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_file_where_the_folder_should_be(images, tmp_path):
    (tmp_path / "out").write_bytes(b"mine")
    with pytest.raises(UsageError, match="a folder for the label maps"):
        predict_files(by_brightness((16, 16)), images, tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == b"mine"


def test_a_second_call_adds_to_the_summary(images, tmp_path):
    predictor, out = by_brightness((16, 16)), tmp_path / "out"
    predict_files(predictor, images / "c.npz", out)
    predict_files(predictor, images / "d.png", out)
    predict_files(predictor, images / "d.png", out, force=True)
    cases = json.loads((out / "predictions.json").read_text())["cases"]
    assert [case["case"] for case in cases] == ["c", "d"]
    (out / "predictions.json").write_text("{")
    with pytest.raises(InputError, match=r"predictions\.json"):
        predict_files(predictor, images / "b.h5", out)


def test_ctrl_c_leaves_whole_files_and_their_summary(images, tmp_path):
    def stop(done, count, file):
        if done >= 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        predict_files(by_brightness((16, 16)), images, tmp_path / "out", progress=stop)
    names = sorted(p.name for p in (tmp_path / "out").rglob("*") if p.is_file())
    assert names == [
        ".predicting.jsonl",
        "b.npz",
        "b.png",
        "c.npz",
        "c.png",
        "predictions.json",
    ]
    assert len(json.loads((tmp_path / "out/predictions.json").read_text())["cases"]) == 2


def test_an_interrupted_prediction_goes_on_where_it_was(images, tmp_path):
    """After Ctrl-C, and after a kill between two writes, the results are those of one call."""

    def stop(done, count, file):
        if done >= 2:
            raise KeyboardInterrupt

    predictor, out = by_brightness((16, 16)), tmp_path / "out"
    predict_files(predictor, images, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        predict_files(predictor, images, out, progress=stop)
    # What a kill -9 leaves: a half line, a half file, an overlay whose label map is missing.
    with (out / ".predicting.jsonl").open("a") as file:
        file.write('{"case": "half')
    (out / ".writing-abc.nii.gz").write_bytes(b"half")
    (out / "overlays" / "d.png").write_bytes(b"half")
    before = (out / "b.npz").stat().st_mtime_ns
    report = predict_files(predictor, images, out)
    assert report.resumed == 2
    assert [file.case for file in report.files] == ["b", "c", "d", "heart"]
    assert (out / "b.npz").stat().st_mtime_ns == before
    held = [
        {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}
        for folder in (out, tmp_path / "whole")
    ]
    assert held[0] == held[1]
    listed = [
        json.loads((folder / "predictions.json").read_text())["cases"]
        for folder in (out, tmp_path / "whole")
    ]
    for case in (*listed[0], *listed[1]):
        del case["seconds"]
    assert listed[0] == listed[1]
    with pytest.raises(UsageError, match="without results"):
        predict_files(predictor, images, out)


@pytest.mark.parametrize("changed", ["image", "labels", "settings", "model"])
def test_it_goes_on_only_with_what_is_the_same(images, tmp_path, changed):
    def stop(done, count, file):
        if done >= 2:
            raise KeyboardInterrupt

    predictor, out, options = by_brightness((16, 16)), tmp_path / "out", {}
    with pytest.raises(KeyboardInterrupt):
        predict_files(predictor, images, out, progress=stop)
    if changed == "image":
        np.savez(images / "c.npz", img=VOLUME[1] + 1)
    elif changed == "labels":
        (out / "c.npz").unlink()
    elif changed == "settings":
        options["probabilities"] = True
    else:
        predictor = by_brightness((16, 16))
        predictor.card["weights_sha256"] = "other"
    if changed in ("settings", "model"):
        with pytest.raises(UsageError, match="without results"):
            predict_files(predictor, images, out, **options)
        assert predict_files(predictor, images, out, force=True, **options).resumed == 0
    else:
        assert predict_files(predictor, images, out).resumed == 1


def test_two_predictions_into_one_folder_are_refused(images, tmp_path):
    predictor, out = by_brightness((16, 16)), tmp_path / "out"

    def again(done, count, file):
        if done < count:
            with pytest.raises(UsageError, match="another process is writing"):
                predict_files(predictor, images / "b.h5", out, force=True)

    assert len(predict_files(predictor, images, out, progress=again).files) == 4
    assert not list(out.glob(".*"))


def test_label_maps_beside_their_images_are_never_predicted(tmp_path, monkeypatch):
    folder = tmp_path / "images"
    (folder / "sub").mkdir(parents=True)
    pixels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    images = [folder / "a.jpg", folder / "sub" / "b.jpg"]
    for image in images:
        Image.fromarray(pixels).save(image)
    predictor = by_brightness((16, 16))
    predict_files(predictor, folder, folder, probabilities=True)
    assert (folder / "sub" / "b.png").is_file()
    assert find_images(folder) == images
    monkeypatch.chdir(folder)
    assert find_images(".") == [Path("a.jpg"), Path("sub/b.jpg")]
    with pytest.raises(UsageError, match="--force"):
        predict_files(predictor, folder, folder)
    report = predict_files(predictor, folder, tmp_path / "out")
    assert [file.file for file in report.files] == images
    # Away from their images, label maps are images like others.
    assert find_images(tmp_path / "out")[0].name == "a.png"
