"""A job may name a model that removes the noise first."""

from __future__ import annotations

import io
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from segweave.errors import UsageError
from segweave.formats import read_case
from segweave.serve.app import create_app
from segweave.serve.limits import Limits
from segweave.serve.models import load_models
from segweave.serve.service import Service
from tests.small import write_volume

from .conftest import URL, Client


def test_a_job_is_denoised_before_it_is_segmented(
    folders: list[Path], denoiser: Path, tmp_path: Path
) -> None:
    models = load_models([folders[0], denoiser], device="cpu")
    file = write_volume(tmp_path / "scan.nii.gz", (16, 20, 3))
    upload = ("scan.nii.gz", file.read_bytes())
    with (
        Service(models, tmp_path / "jobs", Limits()) as service,
        TestClient(create_app(service), base_url=URL) as http,
    ):
        client = Client(service, http)
        job = client.done(upload, denoise="quiet")
        assert job["denoise"] == "quiet"
        with np.load(io.BytesIO(client.result(job, "array"))) as arrays:
            labels = arrays["label"]
        view = http.get(f"/jobs/{job['id']}/view").json()
        assert (view["denoise"], view["pictures"]) == ("quiet", ["image", "denoised"])
        (tmp_path / "denoised.nii.gz").write_bytes(client.result(job, "denoised"))
        shown = np.stack(
            [
                np.asarray(Image.open(io.BytesIO(http.get(f"/jobs/{job['id']}/{name}/2").content)))
                for name in ("pictures/image", "pictures/denoised")
            ]
        )
        # Denoised or not is asked for again; by default it stays as it was.
        for more, denoise in (({}, "quiet"), ({"denoise": ""}, "")):
            answer = http.post(f"/jobs/{job['id']}/again", params={"model": "grey"} | more)
            assert answer.json()["denoise"] == denoise
            plain = client.wait(answer)
        assert "denoised" not in plain["results"]
        # The one model that segments need not be named.
        assert client.send(upload, model="").status_code == 202
        client.refused(422, "denoise: the name", answer=client.send(upload, denoise="grey"))
        client.refused(422, "name of a model", answer=client.send(upload, model="quiet"))
    session, first = models["grey"].session, models["quiet"].session
    case = read_case(file, with_label=False)
    assert np.array_equal(labels, session.after(first).predict(case).labels)
    assert session.denoise is None
    quiet = session.after(first).denoised(case)
    file = nibabel.load(tmp_path / "denoised.nii.gz")
    assert np.array_equal(case.source_grid.to_case(np.asarray(file.dataobj)), quiet.image[:, 0])
    assert np.array_equal(file.affine, nibabel.load(tmp_path / "scan.nii.gz").affine)
    # Both pictures have the grey values of the image: the same value looks the same.
    lower, upper = np.percentile(case.image, (0.5, 99.5))
    for picture, image in zip(shown, (case.image, quiet.image), strict=True):
        grey = np.clip((image[1, 0] - lower) / (upper - lower), 0, 1) * 255
        assert np.abs(picture - grey).max() < 1
    with pytest.raises(UsageError, match="predicts an image"):
        first.after(session)


def test_a_service_needs_a_model_that_segments(denoiser: Path) -> None:
    with pytest.raises(UsageError, match="one model that segments"):
        load_models([denoiser], device="cpu")
