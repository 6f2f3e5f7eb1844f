"""Every example in README and docs is executed, in miniature; reference pages agree with cards.

Blocks of a page run in order in one folder. `python` blocks share their names; `bash` blocks run
the real command in this process; other languages are data: a block with a file name in its first
line or its title is written to that file. `<!-- not run: REASON -->` before a block excuses it.
"""

from __future__ import annotations

import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from segweave import registry
from segweave.cli import main
from segweave.cli.app import ORDER
from segweave.recipes import as_set, load_recipe
from tests.formats.series_of import VOLUME, write_placed

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *DOCS.rglob("*.md")])
SHORT = ["training.epochs=1", "input.size=[32,32]"]
SMALL = [*SHORT, "network.options.width=2"]
SMALL_TIMM = [
    *SHORT,
    "network.options={encoder: test_efficientnet, decoder_channels: [4, 4, 4, 4]}",
]
NO_COMMANDS = ("make", "pip", ".venv/bin/")
FENCE = re.compile(
    r"(?:<!-- not run: (?P<reason>[^>]+?) -->\n)?^```(?P<info>[^\n`]*)\n(?P<body>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Block:
    language: str
    body: str
    reason: str
    title: str
    line: int


def blocks(page: Path) -> Iterator[Block]:
    text = page.read_text(encoding="utf-8")
    for match in FENCE.finditer(text):
        language, _, rest = match["info"].strip().partition(" ")
        named = re.search(r'title="([^"]+)"', rest) or re.match(r"# (\S+\.\w+)\n", match["body"])
        line = text.count("\n", 0, match.start("body")) + 1
        title = named[1] if named else ""
        yield Block(language, match["body"], (match["reason"] or "").strip(), title, line)


def whole(source: Path, target: Path) -> None:
    """Copy a NIfTI file, with an affine that agrees with its voxel size."""
    image = nibabel.load(source)
    affine = np.diag([*image.header.get_zooms()[:3], 1.0])
    target.parent.mkdir(exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(np.asarray(image.dataobj), affine), target)


@pytest.fixture(scope="session")
def miniature(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the pages' commands find: synthetic data in place of the real, and one finished run."""
    import segweave
    from segweave.datasets import prepare
    from segweave.phantoms.abdomen import write_abdomen
    from segweave.phantoms.blobs import write_blobs
    from segweave.phantoms.cardiac import write_cardiac

    folder = tmp_path_factory.mktemp("docs")
    write_cardiac(folder / "ACDC" / "database", 4, size=(40, 36), slices=3)
    write_blobs(folder / "photos", images=10, size=(24, 32))
    write_abdomen(folder / "ct", 6, size=32, slices=3)
    prepare("acdc", folder / "ACDC" / "database", folder / "stores" / "acdc")
    store = folder / "stores" / "acdc"
    segweave.train("demo", store, folder / "runs" / "a", sets=SMALL)
    for path in sorted((folder / "ACDC" / "database").glob("*/*_gt.nii.gz")):
        whole(path, folder / "labels" / path.name)
        whole(path, folder / "truth" / path.name)
        image = path.with_name(path.name.replace("_gt", ""))
        whole(image, folder / "scans" / image.name)
        whole(image, folder / "scan.nii.gz")
    write_placed(folder / "ct-series", volume=np.kron(VOLUME, np.ones((1, 6, 5), np.int16)))
    return folder


@pytest.fixture
def place(miniature: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of the miniature to work in, and registries that forget plug-ins afterwards."""
    shutil.copytree(miniature, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    every = (registry.networks, registry.contexts, registry.datasets)
    before = [dict(known._found()) for known in every]
    yield tmp_path
    for known, cards in zip(every, before, strict=True):
        known._cards = cards  # type: ignore[assignment]
    for name in [n for n in sys.modules if n.startswith("segweave_plugin_")]:
        del sys.modules[name]


def small_sets(recipe: str) -> list[str]:
    """What makes the training of a recipe short."""
    name = load_recipe(recipe).network.name
    if name == "timm-unet":  # its default encoder is small, and a page loads weights into it
        return SHORT
    tiny = registry.networks.card(name).tiny_options
    if name in ("unet", "mt-unet"):
        return SMALL
    return [*SHORT, *(as_set(f"network.options.{key}", value) for key, value in tiny.items())]


def run_shell(body: str, where: str) -> None:
    for line in body.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if not words or words[0].startswith(NO_COMMANDS):
            continue
        assert words[0] == "segweave", f"{where}: {line!r} is not a command of segweave"
        arguments = words[1:]
        if arguments[0] == "train":
            pictures = "stores/photos" in arguments
            small = SMALL_TIMM if pictures else small_sets(arguments[1])
            arguments += [part for text in small for part in ("--set", text)]
        if arguments[0] == "demo":
            arguments += ["--quick"]
        with pytest.raises(SystemExit) as end:
            main(arguments)
        assert end.value.code in (0, None), f"{where}: `{line}` ended with {end.value.code}"


def make_room(page: Path, place: Path) -> None:
    """Remove what the page's own commands make."""
    for block in blocks(page):
        for line in block.body.splitlines():
            made = re.search(r"segweave prepare acdc \S+ (\S+)|train .*--out (\S+)", line)
            if made and not block.reason:
                shutil.rmtree(place / (made[1] or made[2]), ignore_errors=True)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_examples_run(page: Path, place: Path) -> None:
    make_room(page, place)
    names: dict[str, Any] = {"__name__": "example"}
    for block in blocks(page):
        where = f"{page.relative_to(ROOT)}:{block.line}"
        if block.title:
            (place / block.title).write_text(block.body, encoding="utf-8")
        if block.reason:
            continue
        if block.language == "python":
            exec(compile(block.body, where, "exec"), names)
        elif block.language in ("bash", "console", "sh"):
            run_shell(block.body, where)
        else:
            assert block.language in ("yaml", "toml", "csv", "text", "json", "pycon"), where


def test_few_examples_are_excused_and_each_says_why() -> None:
    excused = [block for page in PAGES for block in blocks(page) if block.reason]
    run = [
        block
        for page in PAGES
        for block in blocks(page)
        if not block.reason and block.language in ("python", "bash")
    ]
    assert all(len(block.reason) > 15 for block in excused)
    assert len(excused) * 4 <= len(run)


# Pages that are made from the registries


def test_reference_pages_agree_with_the_cards() -> None:
    sys.path.insert(0, str(DOCS))
    try:
        import make_reference
    finally:
        sys.path.remove(str(DOCS))
    for name, text in make_reference.pages().items():
        written = (DOCS / "reference" / name).read_text(encoding="utf-8")
        assert written == text, f"{name} is out of date: run python docs/make_reference.py"


def test_every_command_and_every_error_code_is_in_the_reference() -> None:
    text = (DOCS / "reference" / "command.md").read_text(encoding="utf-8")
    assert all(f"## {name}" in text for name in ORDER)


def test_navigation_lists_every_page_once() -> None:
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    listed = re.findall(r"- (\S+\.md)$", text, re.MULTILINE)
    # The page of one object is linked from its overview, which the navigation lists.
    pages = [str(p.relative_to(DOCS)) for p in DOCS.rglob("*.md")]
    assert sorted(listed) == sorted(p for p in pages if not re.match(r"reference/\w+/", p))


def test_the_index_links_every_page() -> None:
    # Pages of single objects are linked by the page of their kind.
    pages = {
        page.relative_to(DOCS).as_posix()
        for page in DOCS.rglob("*.md")
        if len(page.relative_to(DOCS).parts) < 3 and page.name != "index.md"
    }
    linked = set(re.findall(r"\]\(([^)#]+\.md)\)", (DOCS / "index.md").read_text(encoding="utf-8")))
    assert linked == pages


def test_the_diagram_shows_every_position(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from segweave.report import save_figure
    from segweave.weaving import POSITIONS

    monkeypatch.syspath_prepend(str(DOCS))
    import make_diagram

    assert make_diagram.POSITIONS.keys() == POSITIONS.keys()
    words = [text.get_text() for text in make_diagram.diagram().axes[0].texts]
    assert all(position in words for position in POSITIONS)
    assert save_figure(make_diagram.diagram(), tmp_path / "d.png").stat().st_size > 10_000
    for page in (ROOT / "README.md", DOCS / "index.md"):
        text = page.read_text(encoding="utf-8")
        assert "images/weaving.png" in text
        assert "images/demo.png" in text


def test_links_between_pages_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8")):
            if not target.startswith(("http://", "https://", "mailto:")):
                assert (page.parent / target).exists(), f"{page.name} → {target}"
