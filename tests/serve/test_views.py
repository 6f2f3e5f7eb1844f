"""What the page is drawn from, and what becomes of a corrected mask, without a browser."""

from __future__ import annotations

import csv
import gzip
import io
import json
import threading
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image

from segweave.data.store import Store
from segweave.datasets import prepare
from segweave.errors import UsageError
from segweave.formats import read_case
from segweave.prediction import measure
from segweave.serve.collect import Collection
from segweave.serve.limits import RefusedError
from segweave.serve.slices import add_map, add_picture
from tests.formats.test_dicom import write_series
from tests.prediction.tiny import BINARY, OVERLAPPING, volume_case
from tests.small import write_volume

from .conftest import Client, Start

NAMED = {"PatientName": "Canary^Jane", "PatientID": "CanaryID7"}


def bytes_of(client: Client, path: str) -> np.ndarray:
    answer = client.http.get(path)
    assert answer.status_code == 200, answer.text
    return np.frombuffer(answer.content, np.uint8)


def sent(client: Client, folder: Path, shape=(20, 24, 3), **fields: str) -> tuple[dict, Path]:
    volume = write_volume(folder / "v.nii.gz", shape)
    return client.done(("scan.nii.gz", volume.read_bytes()), **fields), volume


def test_slices_classes_and_maps(start: Start, models, tmp_path: Path) -> None:
    client = start()
    job, volume = sent(client, tmp_path, probabilities="true")
    path = f"/jobs/{job['id']}"
    prediction = models["grey"].session.predict(read_case(volume), probabilities=True)
    asked, _ = sent(client, tmp_path, uncertainty="entropy")
    view = client.http.get(f"{path}/view").json()
    assert (view["slices"], view["size"], view["overlapping"]) == (3, [24, 20], False)
    assert view["is_volume"]
    assert [one["name"] for one in view["classes"]] == ["left", "right"]
    assert view["maps"] == ["entropy"]
    assert view["measurements"][0]["class"] == "left"
    p = prediction.probabilities
    expected = -(p * np.log(p)).sum(1) / np.log(3)
    for number in (1, 2, 3):
        labels = bytes_of(client, f"{path}/labels/{number}").reshape(24, 20)
        assert np.array_equal(labels, prediction.labels[number - 1])
        heat = bytes_of(client, f"{path}/maps/entropy/{number}").reshape(24, 20)
        assert np.abs(heat / 255 - expected[number - 1]).max() < 0.003
        same = bytes_of(client, f"/jobs/{asked['id']}/maps/uncertainty/{number}")
        assert np.array_equal(same, heat.ravel())
    picture = Image.open(io.BytesIO(client.http.get(f"{path}/pictures/image/1").content))
    assert (picture.size, picture.mode) == ((20, 24), "L")
    for wrong in (
        "labels/0", "labels/4", "labels/99999999999999999999", "maps/other/1", "maps/entropy/9",
        "pictures/other/1", "pictures/..%2Fslices/1", "volumes/other.nii.gz",
    ):  # fmt: skip
        assert client.http.get(f"{path}/{wrong}").status_code == 404, wrong
    assert client.http.get(f"{path}/labels/x").status_code == 422


def test_another_picture_and_map_appear(start: Start, tmp_path: Path) -> None:
    client = start()
    job, volume = sent(client, tmp_path)
    folder, case = client.service.results(job["id"]), read_case(volume)
    add_picture(folder, "denoised", case)
    add_map(folder, "spread", np.linspace(0, 1, case.image.size).reshape(3, 24, 20), case)
    view = client.http.get(f"/jobs/{job['id']}/view").json()
    assert view["pictures"] == ["image", "denoised"]
    assert view["maps"] == ["spread"]
    heat = bytes_of(client, f"/jobs/{job['id']}/maps/spread/3")
    assert heat[-1] == 255
    assert client.http.get(f"/jobs/{job['id']}/pictures/denoised/2").status_code == 200
    with pytest.raises(UsageError, match="plain name"):
        add_map(folder, "../x", [], case)


def test_volumes_for_the_viewer_keep_the_geometry(start: Start, models, tmp_path: Path) -> None:
    client = start()
    job, volume = sent(client, tmp_path)
    labels = models["grey"].session.predict(read_case(volume)).labels
    found = {}
    for name in ("image", "labels"):
        content = client.http.get(f"/jobs/{job['id']}/volumes/{name}.nii.gz").content
        found[name] = nibabel.Nifti1Image.from_bytes(gzip.decompress(content))
    case = read_case(volume)
    at = np.array([1, 5, 7, 1])  # slice, row, column
    assert np.allclose(found["labels"].affine @ at[[2, 1, 0, 3]], case.affine @ at)
    assert np.asarray(found["labels"].dataobj)[7, 5, 1] == labels[1, 5, 7]
    assert np.array_equal(found["image"].affine, found["labels"].affine)


def test_a_correction_is_checked_and_kept(start: Start, models, tmp_path: Path) -> None:
    client = start()
    job, volume = sent(client, tmp_path)
    path = f"/jobs/{job['id']}"
    plain = bytes_of(client, f"{path}/labels/2")
    drawn = plain.copy()
    drawn[:50] = (drawn[:50] + 1) % 3
    put = client.http.put
    assert put(f"{path}/labels/2", content=drawn.tobytes()).json() == {"corrected": [2]}
    assert np.array_equal(bytes_of(client, f"{path}/labels/2"), drawn)
    assert np.array_equal(bytes_of(client, f"{path}/labels/2?corrected=false"), plain)
    assert client.http.get(f"{path}/view").json()["corrected"] == [2]
    for content, status, words in (
        (drawn.tobytes()[:-1], 422, "479 bytes"),
        (drawn.tobytes() + b"\0", 413, "more"),
        (b"\3" * 480, 422, "class id 3"),
    ):
        client.refused(status, words, answer=put(f"{path}/labels/2", content=content))
    assert put(f"{path}/labels/9", content=b"").status_code == 404
    assert np.array_equal(bytes_of(client, f"{path}/labels/2"), drawn), "a refusal changes nothing"
    answer = client.http.get(f"{path}/corrected")
    assert 'filename="corrected.nii.gz"' in answer.headers["content-disposition"]
    (tmp_path / "c.nii.gz").write_bytes(answer.content)
    case = read_case(volume)
    whole = np.array(models["grey"].session.predict(case).labels)
    whole[1] = drawn.reshape(24, 20)
    image = nibabel.load(tmp_path / "c.nii.gz")
    assert np.array_equal(case.source_grid.to_case(np.asarray(image.dataobj)), whole)
    assert np.array_equal(image.affine, nibabel.load(volume).affine)
    text = client.http.get(f"{path}/corrected/measurements").text
    pixels = [int(row["pixels"]) for row in csv.DictReader(io.StringIO(text))]
    target = models["grey"].session.target
    assert pixels == [one.pixels for one in measure(case, whole, target)]
    assert put(f"{path}/labels/2", content=plain.tobytes()).json() == {"corrected": []}
    put(f"{path}/labels/1", content=drawn.tobytes())
    assert client.http.delete(f"{path}/corrections").status_code == 204
    assert client.http.get(f"{path}/view").json()["corrected"] == []


def test_the_same_image_again_and_the_agreement(start: Start, models, tmp_path: Path) -> None:
    client = start()
    job, volume = sent(client, tmp_path)
    again = client.http.post(f"/jobs/{job['id']}/again?model=grey")
    other = client.wait(again)
    assert again.headers["location"] == f"/jobs/{other['id']}"
    labels = models["grey"].session.predict(read_case(volume)).labels
    found = client.http.get(f"/jobs/{job['id']}/agreement/{other['id']}").json()
    for id, one in enumerate(found, 1):
        count = int((labels == id).sum())
        dice = 1.0 if count else None
        assert one | {"name": ""} == {
            "name": "", "dice": dice, "first": count, "second": count, "both": count,
        }  # fmt: skip
    wrong = client.http.post(f"/jobs/{job['id']}/again?model=other")
    client.refused(422, "name of a model", answer=wrong)
    client.refused(
        422, "channels", answer=client.http.post(f"/jobs/{job['id']}/again?model=colour")
    )
    (tmp_path / "small").mkdir()
    small, _ = sent(client, tmp_path / "small", (20, 24, 2))
    answer = client.http.get(f"/jobs/{job['id']}/agreement/{small['id']}")
    client.refused(409, "images of other sizes", answer=answer)
    for path in ("view", "agreement/x", "labels/1", "corrected", "volumes/image.nii.gz"):
        assert client.http.get(f"/jobs/unknown/{path}").status_code == 404


def test_every_kind_of_image_is_collected_for_prepare(start: Start, tmp_path: Path) -> None:
    client = start()
    client.service.collection = Collection(tmp_path / "set")
    series = write_series(tmp_path / "series", **NAMED)
    values = np.random.default_rng(0).normal(0, 1, (3, 20, 24)).astype(np.float32)
    np.savez(tmp_path / "a.npz", image=values)
    np.save(tmp_path / "a.npy", values[0])
    volume = write_volume(tmp_path / "v.nii", (20, 24, 3))
    grey = Image.fromarray(np.random.default_rng(1).integers(0, 255, (20, 24)).astype(np.uint8))
    grey.save(tmp_path / "p.png")
    jobs = []
    for files in (
        [(file.name, file.read_bytes()) for file in sorted(series.iterdir())],
        *([(path.name, path.read_bytes())] for path in (volume, *tmp_path.glob("[ap].*"))),
    ):
        job = client.done(*files)
        answer = client.http.post(f"/jobs/{job['id']}/collect?group=p{len(jobs) % 2}")
        assert answer.status_code == 200, answer.text
        jobs.append((job, answer.json()))
    assert [one["cases"] for _, one in jobs] == [1, 2, 3, 4, 5]
    again = client.http.post(f"/jobs/{jobs[0][0]['id']}/collect").json()
    assert (again["replaced"], again["cases"]) == (True, 5)
    prepare("table", tmp_path / "set" / "cases.csv", tmp_path / "store", classes=("left", "right"))
    store = Store(tmp_path / "store")
    assert sorted(store.ids) == sorted(one["case"] for _, one in jobs)
    for job, one in jobs:
        labels = np.load(io.BytesIO(client.result(job, "array")))["label"]
        assert np.array_equal(store.case(one["case"]).label, labels)
    assert np.array_equal(store.case(jobs[0][1]["case"]).image, read_case(series).image)
    for file in (tmp_path / "set").rglob("*"):
        assert "canary" not in file.name.lower()
        if file.is_file():
            content = file.read_bytes()
            content = gzip.decompress(content) if file.suffix == ".gz" else content
            assert b"canary" not in content.lower(), "no header of DICOM"


def test_what_can_not_be_collected_is_refused(start: Start, tmp_path: Path) -> None:
    client = start()
    job, volume = sent(client, tmp_path)
    path = f"/jobs/{job['id']}/collect"
    client.refused(409, "--collect FOLDER", answer=client.http.post(path))
    client.service.collection = Collection(tmp_path / "set")
    for group in ("../x", "Jane Doe", "-", "a\nb"):
        answer = client.http.post(path, params={"group": group})
        client.refused(422, "letters, digits", answer=answer)
    assert not (tmp_path / "set" / "cases.csv").exists()
    assert client.http.post(path).status_code == 200
    case = read_case(volume)
    labels = np.zeros((3, 24, 20), np.uint8)
    with pytest.raises(RefusedError, match="left, right"):
        client.service.collection.add(volume, case, labels, BINARY)
    with pytest.raises(RefusedError, match="overlapping"):
        client.service.collection.add(volume, case, labels, OVERLAPPING)
    with pytest.raises(UsageError, match="a file"):
        Collection(volume)


def test_a_stream_goes_on_at_its_last_event(start: Start, tmp_path: Path) -> None:
    client = start()
    job, _ = sent(client, tmp_path)
    table, id = client.service.table, job["id"]

    def first(**headers: str) -> dict[str, str]:
        """The first event of a stream of a running job, which ends half a second later."""
        table._do("update jobs set state = 'running', ended = null where id = ?", (id,))
        timer = threading.Timer(0.5, table.finish, (id, {}))
        timer.start()
        text = client.http.get(f"/jobs/{id}/events", headers=headers).text
        timer.join()
        return dict(line.split(": ", 1) for line in text.split("\n\n")[0].splitlines())

    table._do("update jobs set results = '{}' where id = ?", (id,))
    before = first()
    assert before["event"] == "progress"
    assert json.loads(before["data"])["state"] == "running"
    after = first(**{"Last-Event-ID": before["id"]})
    assert after["event"] == "end", "what was seen is not sent again"


def test_overlapping_classes_have_a_plane_each(start: Start, models, tmp_path: Path) -> None:
    from segweave.prediction import Prediction
    from segweave.serve.corrections import corrected_slice, write_correction
    from segweave.serve.results import write_results
    from segweave.serve.slices import volume_nifti

    case = volume_case(2, 6, 5)
    labels = np.zeros((2, 2, 6, 5), np.uint8)
    labels[0, 0, :3], labels[0, 1, 2:4] = 1, 1
    folder = tmp_path / "job" / "results"
    folder.mkdir(parents=True)
    write_results(folder, Path("x.npz"), Prediction(labels, None, case), OVERLAPPING, None, {})
    assert np.array_equal(corrected_slice(folder.parent, 0), labels[0])
    drawn = labels[0].copy()
    drawn[1, 5] = 1
    write_correction(folder.parent, 0, drawn.tobytes())
    assert np.array_equal(corrected_slice(folder.parent, 0), drawn)
    with pytest.raises(RefusedError, match="class id 2"):
        write_correction(folder.parent, 0, b"\2" * 60)
    shown = nibabel.Nifti1Image.from_bytes(gzip.decompress(volume_nifti(folder, labels)))
    assert np.asarray(shown.dataobj)[0, :, 0].tolist() == [1, 1, 2, 2, 0, 0]
