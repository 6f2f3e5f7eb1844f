"""A service with tiny models, and clients of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="the extra serve is not installed")

from starlette.testclient import TestClient

from segweave.data.specs import InputSpec, TargetSpec
from segweave.recipes.build import build_network
from segweave.recipes.loading import parse_recipe
from segweave.serve.app import create_app
from segweave.serve.limits import Limits
from segweave.serve.models import Model, load_models
from segweave.serve.service import Service
from tests.prediction.tiny import Predictor, recipe_of, trained, unet, write_model
from tests.serve.page import Held, Site, chromium, foreign, hear, heart, model, predicting_images

URL = "http://127.0.0.1"
COLOUR = InputSpec(size=(16, 16), slices=1, channels=("red", "green", "blue"))
IMAGE = TargetSpec(kind="image", names=("CT",), unit="HU", range=(0.0, 200.0))
HU = InputSpec(
    channels=("CT",), normalisation="fixed", mean=(0.0,), sd=(100.0,), size=(16, 16), fit="tile"
)


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two model folders: `grey` reads three slices, `colour` one colour picture."""
    folder = tmp_path_factory.mktemp("models")
    write_model(folder / "grey", unet(), recipe_of(), limits="For research.")
    recipe = recipe_of(None, spec=COLOUR)
    write_model(folder / "colour", unet(None, spec=COLOUR), recipe)
    return [folder / "grey", folder / "colour"]


@pytest.fixture(scope="session")
def models(folders: list[Path]) -> dict[str, Model]:
    return load_models(folders, device="cpu")


@pytest.fixture(scope="session")
def denoiser(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a model that predicts an image."""
    recipe = parse_recipe(
        {
            "network": {"name": "red-cnn", "options": {"width": 2}},
            "input": HU.model_dump(mode="json"),
            "training": {"epochs": 1, "loss": [{"name": "mse"}]},
        }
    )
    predictor = Predictor(trained(build_network(recipe, 1, IMAGE)), recipe.input, IMAGE)
    return write_model(tmp_path_factory.mktemp("models") / "quiet", predictor, recipe)


class Client:
    """A client that waits for its jobs."""

    def __init__(self, service: Service, http: TestClient) -> None:
        self.service, self.http = service, http

    def send(self, *files: tuple[str, bytes], **fields: str) -> Any:
        data = {"model": "grey"} | fields
        return self.http.post("/jobs", data=data, files=[("files", file) for file in files])

    def wait(self, answer: Any) -> dict[str, Any]:
        assert answer.status_code == 202, answer.text
        until = time.monotonic() + 60
        while time.monotonic() < until:
            job = self.http.get(f"/jobs/{answer.json()['id']}").json()
            if job["state"] in ("done", "failed"):
                return job
            time.sleep(0.02)
        raise AssertionError(f"the job did not end: {job}")

    def done(self, *files: tuple[str, bytes], **fields: str) -> dict[str, Any]:
        job = self.wait(self.send(*files, **fields))
        assert job["state"] == "done", job
        return job

    def result(self, job: dict[str, Any], name: str) -> bytes:
        answer = self.http.get(job["results"][name])
        assert answer.status_code == 200
        return answer.content

    def refused(self, status: int, *words: str, answer: Any) -> str:
        assert answer.status_code == status, answer.text
        message = answer.json()["message"]
        for word in words:
            assert word in message
        return message


Start = Callable[..., Client]


@pytest.fixture
def start(models: dict[str, Model], tmp_path: Path) -> Iterator[Start]:
    """Start a service in this process, with limits by name; returns a client."""
    with ExitStack() as stack:

        def begin(token: str | None = None, folder: str = "jobs", **limits: Any) -> Client:
            service = Service(models, tmp_path / folder, Limits(**limits))
            stack.enter_context(service)
            http = TestClient(create_app(service, token=token), base_url=URL)
            return Client(service, stack.enter_context(http))

        yield begin


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Not for longer than a module: while it is open, no other loop can run in its thread."""
    with chromium() as one:
        yield one


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, denoiser: Path) -> Site:
    models = {"bright": model("bright", 50.0), "dim": model("dim", 20.0)}
    models["quiet"] = predicting_images(denoiser)
    return Site(models, tmp_path_factory.mktemp("site"))


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return heart(tmp_path_factory.mktemp("image"))


@pytest.fixture(scope="module")
def served(site: Site) -> Iterator[ExitStack]:
    with ExitStack() as stack:
        stack.enter_context(site.running())
        yield stack


@pytest.fixture
def held(site: Site) -> Iterator[Held]:
    """The session of the model `bright`, which is let go at the end."""
    session = site.models["bright"].session
    yield session  # type: ignore[misc]
    session.go.set()  # type: ignore[attr-defined]


@pytest.fixture
def visit(browser: Any, site: Site, served: ExitStack) -> Iterator[Callable[..., Any]]:
    """Open the page as a new visitor. What the browser complains of fails the test."""
    faults: list[str] = []
    with ExitStack() as stack:

        def go(token: str = "", **options: Any) -> Any:
            context = browser.new_context(**{"viewport": {"width": 1150, "height": 600}} | options)
            stack.callback(context.close)
            context.set_default_timeout(20_000)
            page = context.new_page()
            page.on("pageerror", lambda error: faults.append(str(error)))
            page.on("console", lambda said: hear(said, faults))
            page.on("request", lambda sent: foreign(sent.url, site.url, faults))
            page.goto(site.url)
            if token:
                page.fill("#token-value", token)
                page.click("text=Use it")
            page.wait_for_selector("#model option", state="attached")
            return page

        yield go
    assert faults == []
