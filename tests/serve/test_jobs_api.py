"""What is sent becomes the label map that the library makes of it, whatever the format."""

from __future__ import annotations

import csv
import io
import json
import zipfile
from pathlib import Path

import h5py
import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from segweave.formats import read_case
from segweave.prediction import measure
from tests.formats.test_dicom import write_series
from tests.small import write_volume

from .conftest import Start

RNG = np.random.default_rng(0)


def png(mode: str = "RGB", format: str = "PNG") -> bytes:
    stream = io.BytesIO()
    shape = (20, 30, 3) if mode == "RGB" else (20, 30)
    Image.fromarray(RNG.integers(0, 255, shape).astype(np.uint8)).save(stream, format=format)
    return stream.getvalue()


def zipped(folder: Path) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("__MACOSX/._slice", b"\0")
        for file in sorted(folder.iterdir()):
            archive.write(file, f"../../series/{file.name}")
    return stream.getvalue()


def local(models, name: str, path: Path) -> np.ndarray:
    return models[name].session.predict(read_case(path)).labels


def array_of(client, job) -> np.ndarray:
    return np.load(io.BytesIO(client.result(job, "array")))["label"]


def test_a_volume_becomes_label_map_overlay_and_table(start: Start, models, tmp_path: Path) -> None:
    volume = write_volume(tmp_path / "v.nii.gz")
    client = start()
    asked = {"probabilities": "true", "uncertainty": "entropy"}
    job = client.done(("scan.nii.gz", volume.read_bytes()), **asked)
    labels = nib.load(io_file(client.result(job, "labels"), tmp_path / "l.nii.gz"))
    assert np.array_equal(labels.affine, nib.load(volume).affine)
    expected = local(models, "grey", volume)
    assert np.array_equal(array_of(client, job), expected)
    assert sorted(np.unique(np.asarray(labels.dataobj))) == sorted(np.unique(expected))
    rows = list(csv.DictReader(io.StringIO(client.result(job, "measurements").decode())))
    target = models["grey"].session.target
    measured = measure(read_case(volume), expected, target)
    assert [row["class"] for row in rows] == ["left", "right"]
    assert [float(row["volume_ml"]) for row in rows] == [
        pytest.approx(one.volume_ml, abs=1e-3) for one in measured
    ]
    assert all(row["remark"] == "research software, not a medical device" for row in rows)
    maps = np.load(io.BytesIO(client.result(job, "probabilities")))["probabilities"]
    assert np.array_equal(maps.argmax(1), expected)
    spread = np.load(io.BytesIO(client.result(job, "uncertainty")))["uncertainty"]
    session = models["grey"].session
    assert np.array_equal(
        spread, session.predict(read_case(volume), uncertainty="entropy").uncertainty
    )
    assert Image.open(io.BytesIO(client.result(job, "overlay"))).size[0] > 300
    assert job["slices"] == {"count": 4, "size": [40, 36]}


def io_file(content: bytes, path: Path) -> Path:
    path.write_bytes(content)
    return path


def test_every_kind_of_file_is_taken(start: Start, models, tmp_path: Path) -> None:
    series = write_series(tmp_path / "series")
    values = RNG.normal(0, 1, (3, 20, 24)).astype(np.float32)
    np.savez(tmp_path / "a.npz", image=values)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["image"] = values
    for kind in ("PNG", "JPEG", "TIFF"):
        (tmp_path / f"a.{kind.lower()}").write_bytes(png(format=kind))
    client = start()
    parts = [(f"x{k}", f.read_bytes()) for k, f in enumerate(sorted(series.iterdir()))]
    for sent, name, ending, path in (
        (parts, "grey", ".nii.gz", series),
        ([("series.zip", zipped(series))], "grey", ".nii.gz", series),
        *(
            ([(f"B.{kind.upper()}", path.read_bytes())], model, ending, path)
            for kind, model, ending in (
                ("npz", "grey", ".npz"),
                ("h5", "grey", ".npz"),
                ("png", "colour", ".png"),
                ("jpeg", "colour", ".png"),
                ("tiff", "colour", ".png"),
            )
            for path in [tmp_path / f"a.{kind}"]
        ),
    ):
        job = client.done(*sent, model=name)
        assert np.array_equal(array_of(client, job), local(models, name, path)), path
        shown = client.http.get(job["results"]["labels"]).headers["content-disposition"]
        assert shown == f'attachment; filename="labels{ending}"'


def test_the_stream_of_events_ends_with_the_job(start: Start, tmp_path: Path) -> None:
    client = start()
    sent = client.send(("a.nii", write_volume(tmp_path / "a.nii").read_bytes()))
    text = client.http.get(f"/jobs/{sent.json()['id']}/events").text
    events = [part.split("\n", 1) for part in text.strip().split("\n\n")]
    assert events[-1][0] == "event: end"
    assert json.loads(events[-1][1].removeprefix("data: "))["state"] == "done"
    assert all(kind == "event: progress" for kind, _ in events[:-1])
    assert client.http.get("/jobs/unknown/events").status_code == 404


def test_slices_are_drawn(start: Start, tmp_path: Path) -> None:
    client = start()
    job = client.done(("a.nii", write_volume(tmp_path / "a.nii", (36, 40, 3)).read_bytes()))

    def drawn(query: str) -> Image.Image:
        answer = client.http.get(f"/jobs/{job['id']}/slices/{query}")
        assert answer.status_code == 200, answer.text
        return Image.open(io.BytesIO(answer.content))

    plain, painted = drawn("2?labels=false"), drawn("2")
    assert plain.size == painted.size == (36, 40)
    colours = np.asarray(plain.convert("RGB"))
    assert (colours[..., 0] == colours[..., 2]).all(), "a grey slice is grey"
    assert not np.array_equal(colours, np.asarray(painted.convert("RGB")))
    for wrong, status in (("0", 404), ("4", 404), ("-1", 404), ("1?opacity=2", 422), ("x", 422)):
        assert client.http.get(f"/jobs/{job['id']}/slices/{wrong}").status_code == status


def test_a_job_is_deleted_with_its_files(start: Start, tmp_path: Path) -> None:
    client = start()
    job = client.done(("a.nii", write_volume(tmp_path / "a.nii").read_bytes()))
    home = client.service.folder / "jobs" / job["id"]
    assert home.is_dir()
    assert client.http.delete(f"/jobs/{job['id']}").status_code == 204
    assert not home.exists()
    for path in ("", "/results/labels", "/slices/1", "/events"):
        assert client.http.get(f"/jobs/{job['id']}{path}").status_code == 404
    assert client.http.delete(f"/jobs/{job['id']}").status_code == 404


def test_pages_models_and_openapi(start: Start) -> None:
    client = start()
    for page in ("/", "/docs"):
        answer = client.http.get(page)
        assert "not a medical device" in answer.text
        assert "http://" not in answer.text, "it works offline"
    cards = {card["name"]: card for card in client.http.get("/models").json()["models"]}
    assert set(cards) == {"grey", "colour"}
    assert cards["grey"]["limits"] == "For research."
    assert "recipe" not in cards["grey"], "it holds paths"
    schema = client.http.get("/openapi.json").json()
    form = schema["paths"]["/jobs"]["post"]["requestBody"]["content"]["multipart/form-data"]
    assert form["schema"]["properties"]["model"]["enum"] == ["grey", "colour"]
    assert client.http.get("/health").json() == {"status": "ok", "waiting": 0}


def test_the_format_of_the_label_map_can_be_chosen(start: Start, tmp_path: Path) -> None:
    volume = write_volume(tmp_path / "a.nii", (20, 24, 2)).read_bytes()
    client = start()
    job = client.done(("a.nii", volume), format="npz")
    labels = np.load(io.BytesIO(client.result(job, "labels")))["label"]
    assert labels.shape == (2, 24, 20)
    client.refused(422, "for 2 slices", answer=client.send(("a.nii", volume), format="png"))
