"""A service on a real port whose models are quick, and the browser that looks at its page."""

from __future__ import annotations

import os
import re
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
import uvicorn

from segweave.data.specs import class_colours
from segweave.prediction import load
from segweave.serve.app import create_app
from segweave.serve.collect import Collection
from segweave.serve.limits import Limits
from segweave.serve.models import Model
from segweave.serve.service import Service
from tests.prediction.tiny import by_brightness

SIZE = (48, 40)


class Held:
    """A session that waits for `go` after the first slice, so that a running job can be seen."""

    def __init__(self, session: Any) -> None:
        self._session, self.target = session, session.target
        self.go = threading.Event()
        self.go.set()

    def check(self, case: Any) -> None:
        self._session.check(case)

    def after(self, first: Any) -> Any:
        return self._session.after(first)

    def predict(self, case: Any, *, progress: Any = lambda *_: None, **options: Any) -> Any:
        progress(1, case.slices, "")
        while not self.go.wait(0.02):
            progress(1, case.slices, "")
        return self._session.predict(case, progress=progress, **options)


def model(name: str, slope: float, **card: Any) -> Model:
    """A model by brightness: its two classes are what is above the mean and far above it."""
    predictor = by_brightness(SIZE)
    with torch.no_grad():
        predictor.network.slope.fill_(slope)
    target = predictor.target
    shown = {
        "title": f"brightness {slope:g}",
        "limits": "Knows nothing but brightness.",
        "scores": {"Dice": 0.5},
        "parameters": 1,
        "training_data": {"name": "no data", "cases": 0},
        "target": target.model_dump(mode="json"),
        "colours": {target.foreground[k]: v for k, v in class_colours(target).items()},
        "input": {"channels": ["grey"], "slices": 1},
    }
    return Model(name, Held(predictor.session()), {"name": name} | shown | card)  # type: ignore[arg-type]


def predicting_images(folder: Path) -> Model:
    """The model of a folder that predicts an image, made to change it much."""
    predictor = load(folder, device="cpu")
    with torch.no_grad():
        for parameter in predictor.network.parameters():
            parameter.mul_(3)
    card = {"name": folder.name, "target": predictor.target.model_dump(mode="json")}
    return Model(folder.name, predictor.session(), card)


class Site:
    """The service; it can be stopped and started again at the same address."""

    def __init__(self, models: dict[str, Model], home: Path, **limits: Any) -> None:
        self.models, self.home, self.limits = models, home, Limits(**limits)
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"

    @contextmanager
    def running(self, token: str | None = None, collect: bool = True) -> Iterator[Service]:
        collection = Collection(self.home / "collected") if collect else None
        service = Service(self.models, self.home / "jobs", self.limits, collection)
        config = uvicorn.Config(
            create_app(service, token=token),
            host="127.0.0.1",
            port=self.port,
            log_config=None,
            timeout_graceful_shutdown=1,
        )
        server = uvicorn.Server(config)
        with service:
            thread = threading.Thread(target=server.run, daemon=True)
            thread.start()
            while not server.started:
                time.sleep(0.01)
            try:
                yield service
            finally:
                service.stop()
                server.should_exit = True
                thread.join()


def heart(folder: Path, name: str = "heart.nii.gz", slices: int = 6, noise: float = 8.0) -> Path:
    """A volume of a bright ring that moves from slice to slice, darker inside."""
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    rng = np.random.default_rng(0)
    values = rng.normal(100, noise, (SIZE[1], SIZE[0], slices)).astype(np.float32)
    for k in range(slices):
        away = np.hypot(rows - 20 - k, columns - 20).T
        values[:, :, k] += 120 * (away < 12 - abs(k - 2)) + 150 * (away < 6 - abs(k - 2) / 2)
    path = folder / name
    nibabel.save(nibabel.Nifti1Image(values, np.diag([1.5, 1.5, 8.0, 1.0])), path)
    return path


@contextmanager
def chromium() -> Iterator[Any]:
    """A headless browser; skips where there is none, but not in CI."""
    sync = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None and "CI" not in os.environ:
        pytest.skip("chromium is not installed")
    with ExitStack() as stack:
        playwright = stack.enter_context(sync.sync_playwright())
        # WebGL without a graphics card, and canvases that are quick to draw and to read without it.
        arguments = ["--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader"]
        arguments += ["--disable-accelerated-2d-canvas"]
        browser = playwright.chromium.launch(executable_path=path, args=arguments)
        stack.callback(browser.close)
        yield browser


def hear(said: Any, faults: list[str]) -> None:
    # The page itself shows a refusal, and that the service is away.
    if said.type == "error" and not re.search("status of 4|ERR_CONNECTION", said.text):
        faults.append(said.text)


def foreign(url: str, home: str, faults: list[str]) -> None:
    if not url.startswith((home, "blob:", "data:")):
        faults.append(f"asked {url}")


def opened(page: Any, image: Path) -> Any:
    page.set_input_files("#files", image)
    page.wait_for_selector("#stages[data-slice]")
    return page


def pixels(page: Any, stage: int = 0) -> bytes:
    """What a canvas shows."""
    script = "k => document.querySelectorAll('.sheet > [role=img]')[k].toDataURL()"
    return page.evaluate(script, stage).encode()


def until(page: Any, script: str) -> None:
    page.wait_for_function(script)


def stroke(page: Any) -> None:
    """Draw with the mouse, in the upper left of the picture."""
    canvas = page.locator(".sheet > [role=img]")
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    x, y = box["x"] + box["width"] / 8, box["y"] + box["height"] / 8
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + box["width"] / 4, y, steps=3)
    page.mouse.up()


def corrected(page: Any, folder: Path) -> np.ndarray:
    with page.expect_download() as download:
        page.click("#corrected")
    assert download.value.suggested_filename == "corrected.nii.gz"
    path = folder / "corrected.nii.gz"
    download.value.save_as(path)
    return np.asarray(nibabel.load(path).dataobj)
