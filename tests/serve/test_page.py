"""The page in a real browser: what a person does with it, and what becomes of it."""

from __future__ import annotations

import re
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import segweave.serve.pages as pages
from segweave.formats import read_case
from segweave.serve.pages import STATIC, VIEWER
from segweave.serve.slices import add_map, add_picture
from tests.formats.test_dicom import write_series

from .page import (
    Held,
    Site,
    corrected,
    heart,
    opened,
    pixels,
    stroke,
    until,
)

TOKEN = "0123456789abcdef-token"


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
