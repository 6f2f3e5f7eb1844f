"""The page in a real browser: what a person does with it, and what becomes of it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from PIL import Image

import segweave.serve.pages as pages
from segweave.formats import read_case
from segweave.serve.pages import STATIC, VIEWER
from segweave.serve.slices import add_map, add_picture
from segweave.workflow.ranking import score_case
from tests.formats.test_dicom import write_series

from .page import (
    Held,
    Site,
    chromium,
    foreign,
    hear,
    heart,
    model,
    opened,
    pixels,
    predicting_images,
    stroke,
    until,
)

TOKEN = "0123456789abcdef-token"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
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


def on_slice(page: Any, number: int) -> None:
    page.wait_for_selector(f"#stages[data-slice='{number}']")
    assert page.inner_text("#slice-number") == f"{number} of 6"


def test_upload_queue_and_progress(visit, held: Held, image: Path) -> None:
    page = visit()
    held.go.clear()
    page.set_input_files(
        "#files", [image, heart(image.parent, "b.nii"), heart(image.parent, "c.nii")]
    )
    page.wait_for_selector("text=running, slice 1 of 6")
    page.wait_for_selector("text=in the queue, 1 before it")
    page.wait_for_selector("text=next in the queue")
    bar = page.locator("li:has-text('heart.nii.gz') progress")
    assert (bar.get_attribute("value"), bar.get_attribute("max")) == ("1", "6")
    assert page.get_attribute("#status", "aria-live") == "polite"
    held.go.set()
    page.wait_for_selector("#stages[data-slice]")
    assert page.inner_text("#result-title") == "heart.nii.gz", "the first one opens by itself"
    until(page, "() => document.querySelectorAll('.jobs .open:not([hidden])').length === 3")
    assert page.inner_text("#card").count("Knows nothing but brightness.") == 1
    page.click("[aria-label='Delete b.nii, bright']")
    page.wait_for_selector(".name:has-text('b.nii')", state="detached")
    page.reload()
    until(page, "() => document.querySelectorAll('.jobs .open:not([hidden])').length === 2")
    page.click("[aria-label='Delete c.nii, bright']")


def test_slices_classes_and_heat_map(visit, image: Path) -> None:
    page = opened(visit(), image)
    on_slice(page, 3)
    canvas = page.locator(".sheet > [role=img]")
    assert canvas.get_attribute("aria-label") == "bright, slice 3 of 6"
    seen = {pixels(page)}
    page.focus("#slice")
    page.keyboard.press("ArrowRight")
    on_slice(page, 4)
    canvas.focus()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowDown")
    on_slice(page, 2)
    canvas.hover()
    page.mouse.wheel(0, 120)
    on_slice(page, 5)
    page.keyboard.press("Home")
    on_slice(page, 1)
    page.fill("#slice", "3")
    on_slice(page, 3)
    assert {pixels(page)} == seen, "the same slice looks the same"
    for change in (
        lambda: page.check("[value=outline]"),
        lambda: page.uncheck("li:has-text('right') >> input[type=checkbox]"),
        lambda: page.check("li:has-text('right') >> input[type=checkbox]"),
        lambda: page.fill("[aria-label='Colour of right']", "#0000ff"),
        lambda: page.check("[value=filled]"),
        lambda: page.fill("#opacity", "90"),
    ):
        before = pixels(page)
        change()
        assert pixels(page) != before
    before = pixels(page)
    page.select_option("#map", "uncertainty")
    page.wait_for_selector("#stages[data-map=uncertainty]")
    assert page.is_visible("#map-key")
    assert pixels(page) != before
    assert "A confident network can be wrong" in page.inner_text("#map-about")
    assert [row.split("\t")[0] for row in page.inner_text("#measures").splitlines()[-2:]] == [
        "left",
        "right",
    ]


def test_what_other_parts_add_to_a_result_can_be_shown(visit, site: Site, image: Path) -> None:
    page = visit()
    page.click("text=Options")
    page.uncheck("#uncertainty")
    opened(page, image)
    assert page.is_hidden("#picture-choice")
    assert page.is_hidden("#map-choice")
    id = page.evaluate("JSON.parse(localStorage['segweave-jobs'])[0].id")
    folder, case = site.home / "jobs" / "jobs" / id / "results", read_case(image)
    add_picture(folder, "denoised", replace(case, image=-case.image))
    add_map(folder, "spread", np.full((6, *case.size), 0.9), case)
    page.click("[aria-label='Open heart.nii.gz, bright']")
    page.wait_for_selector("#picture-choice")
    seen = [pixels(page)]
    for choice, name in (
        ("#picture", "denoised"),
        ("#map", "spread"),
        ("#picture", "image"),
    ):
        page.select_option(choice, name)
        page.wait_for_selector(f"#stages[data-{choice[1:]}='{name}']")
        seen.append(pixels(page))
    assert len(set(seen)) == 4


def test_two_models_beside_each_other(visit, site: Site, image: Path) -> None:
    page = opened(visit(), image)
    page.click("#compare")
    page.wait_for_selector("#agreement td")
    until(page, "() => document.querySelectorAll('figure').length === 3")
    case = read_case(image)
    a, b = (site.models[name].session.predict(case).labels for name in ("bright", "dim"))
    for id, name in ((1, "left"), (2, "right")):
        one, two = a == id, b == id
        dice = 2 * (one & two).sum() / (one.sum() + two.sum())
        row = page.inner_text(f"#agreement tbody tr:has-text('{name}')")
        assert row.split() == [name, f"{dice:.3f}", f"{one.sum():,}", f"{two.sum():,}"]
    first = [pixels(page, k) for k in range(3)]
    assert len(set(first)) == 3
    page.fill("#slice", "5")
    until(
        page,
        "() => [...document.querySelectorAll('.sheet > [role=img]')]"
        ".every(one => one.ariaLabel.endsWith('slice 5 of 6'))",
    )
    assert all(pixels(page, k) != first[k] for k in range(3)), "one slider for all"
    page.click("#compare-end")
    assert page.locator("figure").count() == 1


def test_the_noise_is_removed_first(visit, site: Site, image: Path) -> None:
    page = visit()
    assert page.locator("#model option").all_inner_texts() == ["bright", "dim"]
    page.click("text=Options")
    page.select_option("#denoise", "quiet")
    opened(page, image)
    assert page.inner_text("#result-about").startswith("Model bright after quiet; 6 slices")
    page.wait_for_selector("[aria-label='Open heart.nii.gz, bright after quiet']")
    assert "denoised – denoised image" in page.inner_text("#downloads")
    noisy = pixels(page)
    page.select_option("#picture", "denoised")
    page.wait_for_selector("#stages[data-picture=denoised]")
    assert pixels(page) != noisy
    assert page.locator("#other option").all_inner_texts() == ["dim after quiet", "bright"]
    page.select_option("#other", label="bright")
    page.click("#compare")
    page.wait_for_selector("#agreement td")
    case, session = read_case(image), site.models["bright"].session
    a = session.after(site.models["quiet"].session).predict(case).labels
    b = session.predict(case).labels
    assert (a != b).any()
    for id, name in ((1, "left"), (2, "right")):
        row = page.inner_text(f"#agreement tbody tr:has-text('{name}')").split()
        assert row[2:] == [f"{(a == id).sum():,}", f"{(b == id).sum():,}"]


def test_the_most_doubtful_come_first(visit, site: Site, tmp_path: Path) -> None:
    files = [
        heart(tmp_path, f"{name}.nii", noise=noise)
        for name, noise in (("clear", 2.0), ("worst", 60.0), ("middle", 25.0))
    ]
    page = visit()
    page.set_input_files("#files", files)
    until(page, "() => document.querySelectorAll('.jobs .open:not([hidden])').length === 3")
    names = page.locator(".jobs .name")
    assert names.all_inner_texts() == ["middle.nii", "worst.nii", "clear.nii"], "the newest first"
    page.select_option("#order", "doubt")
    scores = {}
    for file in files:
        result = site.models["bright"].session.predict(read_case(file), uncertainty="entropy")
        scores[file.name] = score_case(result.labels, result.uncertainty).score
    order = sorted(scores, key=lambda name: -scores[name])
    assert order != ["middle.nii", "worst.nii", "clear.nii"]
    assert names.all_inner_texts() == order
    states = page.locator(".jobs .state").all_inner_texts()
    assert states == [f"done, doubt {scores[name]:.3f}" for name in order]
    page.click(f"[aria-label='Delete {order[0]}, bright']")
    page.wait_for_selector(f".name:has-text('{order[0]}')", state="detached")
    assert names.all_inner_texts() == order[1:]
    page.click(f"[aria-label='Delete {order[1]}, bright']")
    page.wait_for_selector("#order-choice", state="hidden")


def test_letters_at_the_edges(visit, image: Path, tmp_path: Path) -> None:
    page = opened(visit(), image)
    places = {}
    sheet = page.locator(".sheet").bounding_box()
    for letter in page.locator(".edge").all():
        box = letter.bounding_box()
        x = (box["x"] + box["width"] / 2 - sheet["x"]) / sheet["width"]
        y = (box["y"] + box["height"] / 2 - sheet["y"]) / sheet["height"]
        places[letter.inner_text()] = (round(x), round(y), x == pytest.approx(0.5, abs=0.02))
    # Columns run to the patient's left, rows to posterior.
    assert {letter: where[0] for letter, where in places.items() if not where[2]} == {
        "R": 0,
        "L": 1,
    }
    assert {letter: where[1] for letter, where in places.items() if where[2]} == {"A": 0, "P": 1}
    assert "left R, right L, top A, bottom P" in page.inner_text("#result-about")
    Image.fromarray(np.arange(48 * 40, dtype=np.uint8).reshape(48, 40)).save(tmp_path / "a.png")
    page.set_input_files("#files", tmp_path / "a.png")
    until(page, "() => document.getElementById('result-title').textContent === 'a.png'")
    page.wait_for_selector("#stages[data-slice]")
    assert page.locator(".edge").count() == 0


def corrected(page: Any, folder: Path) -> np.ndarray:
    with page.expect_download() as download:
        page.click("#corrected")
    assert download.value.suggested_filename == "corrected.nii.gz"
    path = folder / "corrected.nii.gz"
    download.value.save_as(path)
    return np.asarray(nibabel.load(path).dataobj)


def test_a_mask_is_corrected_downloaded_and_prepared(
    visit, site: Site, image: Path, tmp_path: Path
) -> None:
    from segweave.data.store import Store
    from segweave.datasets import prepare

    page = opened(visit(), image)
    page.check("#correcting")
    page.select_option("#brush-class", label="left")
    page.fill("#brush-size", "4")
    stroke(page)
    page.wait_for_selector("text=one slice is corrected and saved")
    plain = np.asarray(site.models["bright"].session.predict(read_case(image)).labels)
    file = nibabel.load(image)
    drawn = corrected(page, tmp_path)
    assert np.array_equal(nibabel.load(tmp_path / "corrected.nii.gz").affine, file.affine)
    assert drawn.shape == file.shape
    case = read_case(image)
    changed = case.source_grid.to_case(drawn) != plain
    assert changed[2].sum() > 20, "a stroke of 10 × 4 pixels"
    assert changed.sum() == changed[2].sum(), "other slices are as they were"
    assert (case.source_grid.to_case(drawn)[changed] == 1).all()
    assert page.is_disabled("#redo")
    page.click("#undo")
    assert page.is_disabled("#undo")
    until(page, "() => document.getElementById('saved').textContent === ''")
    assert np.array_equal(case.source_grid.to_case(corrected(page, tmp_path)), plain)
    page.click("#redo")
    page.check("[value=eraser]")
    page.focus(".sheet > [role=img]")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Space")
    until(page, "() => document.getElementById('saved').textContent.includes('saved')")
    erased = case.source_grid.to_case(corrected(page, tmp_path))
    gone = (case.source_grid.to_case(drawn) == 1) & (erased == 0)
    assert 2 < gone[2].sum() < changed[2].sum(), "the keyboard draws too"
    page.reload()
    page.click("[aria-label='Open heart.nii.gz, bright']")
    page.wait_for_selector("text=one slice is corrected and saved")
    page.click("#measure")
    page.wait_for_selector("text=Of the corrected mask")
    assert f"left\t{(erased == 1).sum()}\t" in page.inner_text("#measures")
    page.click("text=Add to my data set")
    page.fill("#group", "p7")
    page.click("#collect-add")
    page.wait_for_selector("#collected code")
    assert "prepare table FOLDER/cases.csv STORE --classes 'left,right'" in page.inner_text(
        "#collected"
    )
    home = site.home / "collected"
    prepare("table", home / "cases.csv", tmp_path / "store", classes=("left", "right"))
    stored = Store(tmp_path / "store")
    (id,) = stored.ids
    assert stored.case(id).group == "p7"
    assert np.array_equal(stored.case(id).label, erased)
    assert np.array_equal(stored.case(id).image, case.image)
    prepare("folder", home / "images", tmp_path / "other", masks=home / "masks")
    assert np.array_equal(Store(tmp_path / "other").case(id).label, erased)


def test_bad_files_are_refused_with_what_to_do(visit, image: Path, tmp_path: Path) -> None:
    page = visit()
    (tmp_path / "broken.nii.gz").write_bytes(image.read_bytes()[:200])
    (tmp_path / "notes.docx").write_bytes(b"not an image")
    page.set_input_files("#files", [tmp_path / "broken.nii.gz", tmp_path / "notes.docx"])
    until(page, "() => document.querySelectorAll('#refused .alarm').length === 2")
    assert page.get_attribute("#refused", "role") == "alert"
    for text in page.locator("#refused .alarm").all_inner_texts():
        assert re.match(r"(broken.nii.gz|notes.docx): ", text)
        assert "what to do" in text
    assert page.locator(".jobs li").count() == 0
    page.evaluate(
        """() => {
          const data = new DataTransfer();
          data.items.add(new File(["x"], "dropped.png"));
          const event = new DragEvent("drop", {dataTransfer: data, bubbles: true});
          document.getElementById("drop").dispatchEvent(event);
        }"""
    )
    page.wait_for_selector("#refused .alarm:has-text('dropped.png')")


def test_a_folder_of_a_series_is_one_job(visit, tmp_path: Path) -> None:
    page = visit()
    series = write_series(tmp_path / "series")
    (series / ".DS_Store").write_bytes(b"x")
    page.set_input_files("#folder", series)
    page.wait_for_selector("#stages[data-slice]")
    count = sum(not file.name.startswith(".") for file in series.iterdir())
    assert page.inner_text("#result-title") == f"series ({count} files)"
    assert "labels" in page.inner_text("#downloads")


def test_a_lost_connection_is_announced_and_nothing_is_lost(
    visit, site: Site, held: Held, image: Path, served: ExitStack, tmp_path: Path
) -> None:
    page = opened(visit(), image)
    page.check("#correcting")
    held.go.clear()
    page.set_input_files("#files", heart(tmp_path, "late.nii"))
    page.wait_for_selector("text=running, slice 1 of 6")
    served.close()
    page.wait_for_selector("text=The connection to the service is lost")
    assert page.get_attribute("#connection", "role") == "status"
    stroke(page)
    page.set_input_files("#files", heart(tmp_path, "later.nii"))
    page.wait_for_selector("text=later.nii waits for the connection")
    held.go.set()
    served.enter_context(site.running())
    page.wait_for_selector("#connection", state="hidden")
    until(page, "() => document.querySelectorAll('.jobs .open:not([hidden])').length === 3")
    page.click("[aria-label='Open heart.nii.gz, bright']")
    page.wait_for_selector("text=one slice is corrected and saved")


def test_small_screens_keyboards_and_readers(visit, image: Path) -> None:
    page = opened(visit(viewport={"width": 360, "height": 740}, has_touch=True), image)
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    page.reload()
    page.wait_for_selector(".jobs .open:not([hidden])")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    order = []
    for _ in range(6):
        page.keyboard.press("Tab")
        order.append(page.evaluate("document.activeElement.id || document.activeElement.href"))
    assert order[1:4] == ["model", "choose-files", "choose-folder"]
    page.click("[aria-label='Open heart.nii.gz, bright']")
    page.wait_for_selector("#stages[data-slice]")
    assert page.evaluate("document.activeElement.id") == "result-title"
    page.check("#correcting")
    nameless = page.evaluate(
        """() => [
          ...document.querySelectorAll("input, select, button, a, progress, canvas, [role]")]
        .filter(one => one.checkVisibility() && one.ariaHidden !== "true")
        .filter(one => !(one.labels?.length || one.ariaLabel || one.textContent.trim()
          || one.getAttribute("aria-labelledby") || one.tagName === "DIV"
          || ["status", "alert"].includes(one.role)))
        .map(one => one.outerHTML)"""
    )
    assert nameless == []


def test_with_a_token_and_without_viewer_and_folder(
    visit, site: Site, image: Path, monkeypatch: pytest.MonkeyPatch, served: ExitStack, tmp_path
) -> None:
    monkeypatch.setattr(pages, "VIEWER", STATIC / "absent.js")
    served.close()
    served.enter_context(site.running(token=TOKEN, collect=False))
    try:
        page = opened(visit(token=TOKEN), image)
        assert "make page" in page.inner_text("#volume")
        page.click("text=Add to my data set")
        assert "--collect FOLDER" in page.inner_text("#collect-how")
        assert page.is_hidden("#collect-add")
        plain = site.models["bright"].session.predict(read_case(image)).labels
        assert np.array_equal(
            read_case(image).source_grid.to_case(corrected(page, tmp_path)), plain
        )
    finally:
        served.close()
        served.enter_context(site.running())


@pytest.mark.skipif(not VIEWER.is_file(), reason="the 3D viewer is not there: make page")
def test_the_viewer_shows_image_and_labels(visit, image: Path) -> None:
    page = opened(visit(), image)
    page.click("text=Show in 3D")
    page.wait_for_selector("canvas.volume[data-loaded]")
