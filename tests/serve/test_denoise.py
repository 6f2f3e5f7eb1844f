"""A job may name a model that removes the noise first."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from starlette.testclient import TestClient

from segweave.data.specs import InputSpec, TargetSpec
from segweave.errors import UsageError
from segweave.formats import read_case
from segweave.recipes.build import build_network
from segweave.recipes.loading import parse_recipe
from segweave.serve.app import create_app
from segweave.serve.limits import Limits
from segweave.serve.models import load_models
from segweave.serve.service import Service
from tests.prediction.tiny import Predictor, trained, write_model
from tests.small import write_volume

from .conftest import URL, Client

IMAGE = TargetSpec(kind="image", names=("CT",), unit="HU", range=(0.0, 200.0))
SPEC = InputSpec(
    channels=("CT",), normalisation="fixed", mean=(0.0,), sd=(100.0,), size=(16, 16), fit="tile"
)


@pytest.fixture(scope="module")
def denoiser(tmp_path_factory: pytest.TempPathFactory) -> Path:
    recipe = parse_recipe(
        {
            "network": {"name": "red-cnn", "options": {"width": 2}},
            "input": SPEC.model_dump(mode="json"),
            "training": {"epochs": 1, "loss": [{"name": "mse"}]},
        }
    )
    predictor = Predictor(trained(build_network(recipe, 1, IMAGE)), recipe.input, IMAGE)
    return write_model(tmp_path_factory.mktemp("models") / "quiet", predictor, recipe)


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
        # The one model that segments need not be named.
        assert client.send(upload, model="").status_code == 202
        client.refused(422, "denoise: the name", answer=client.send(upload, denoise="grey"))
        client.refused(422, "name of a model", answer=client.send(upload, model="quiet"))
    session, first = models["grey"].session, models["quiet"].session
    case = read_case(file, with_label=False)
    assert np.array_equal(labels, session.after(first).predict(case).labels)
    assert session.denoise is None
    with pytest.raises(UsageError, match="predicts an image"):
        first.after(session)


def test_a_service_needs_a_model_that_segments(denoiser: Path) -> None:
    with pytest.raises(UsageError, match="one model that segments"):
        load_models([denoiser], device="cpu")
