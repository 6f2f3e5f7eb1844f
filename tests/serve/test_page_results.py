"""What the page does with a result: two models, no noise, order, letters, correction."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image

from segweave.formats import read_case
from segweave.workflow.ranking import score_case

from .page import (
    Site,
    corrected,
    heart,
    opened,
    pixels,
    stroke,
    until,
)


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
