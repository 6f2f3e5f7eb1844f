"""Cards are read without running a file; plug-in files and entry points add to them."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from dataclasses import fields
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from segweave import card_files, registry
from segweave.card_files import read_cards
from segweave.errors import InputError, UsageError
from segweave.plugin_errors import plugin_error
from segweave.registry import (
    REGISTRIES,
    Card,
    ContextCard,
    DatasetCard,
    LossCard,
    MetricCard,
    NetworkCard,
    Registry,
    register_plugin,
)

ENTRIES = [(r, name) for r in REGISTRIES for name in r.cards()]


@pytest.fixture
def fresh() -> Registry[NetworkCard]:
    """A separate registry, so that a test leaves nothing behind."""
    return Registry("network", "segweave.networks", NetworkCard, "segweave.networks")


def plugin(folder: Path, text: str, name: str = "mine.py") -> Path:
    path = folder / name
    path.write_text(text)
    return path


PLUGIN = """
from segweave.registry import NetworkCard

CARD = NetworkCard(name="{name}", title="a plug-in", entry="Mine", options={{"width": 4}})


class Mine:
    def __init__(self, in_channels, classes, width):
        self.settings = (in_channels, classes, width)
"""


@pytest.mark.parametrize(
    ("what", "names"),
    [
        (registry.networks, {"unet", "mt-unet"}),
        (
            registry.contexts,
            {"sa-lstm", "lstm-sa", "sa-embedded-lstm", "identity", "mean", "conv"},
        ),
        (registry.datasets, {"acdc", "folder"}),
        (registry.metrics, {"dice", "hd95"}),
    ],
)
def test_the_names_that_the_project_promises(what: Registry[Card], names: set[str]) -> None:
    assert names <= set(what.cards())


@pytest.mark.parametrize(
    ("what", "name"), ENTRIES, ids=[f"{r.what} {n}".replace(" ", "-") for r, n in ENTRIES]
)
def test_every_card_is_complete_and_points_to_something(what: Registry[Card], name: str) -> None:
    card = what.card(name)
    assert card.name == name == name.lower()
    assert len(card.title) > 5
    assert card.licence
    assert callable(what.entry(name))


def test_listing_imports_neither_torch_nor_numpy() -> None:
    code = (
        "import sys\n"
        "from segweave import registry as r\n"
        "[x.cards() for x in (r.networks, r.contexts, r.datasets, r.metrics, r.losses)]\n"
        "print(sorted({'torch', 'numpy', 'pydantic', 'nibabel'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_an_unknown_name_names_the_nearest(fresh: Registry[NetworkCard]) -> None:
    with pytest.raises(UsageError, match=r"choosing a network[\s\S]*mt-unet"):
        fresh.card("mt-unt")


def test_reading_a_card_does_not_run_its_file(tmp_path: Path) -> None:
    path = plugin(tmp_path, PLUGIN.format(name="quiet") + "\nraise RuntimeError('it ran')\n")
    (card,) = read_cards(path, NetworkCard)
    assert (card.name, card.options) == ("quiet", {"width": 4})


def test_text_constants_of_the_file_may_be_used_in_a_card(tmp_path: Path) -> None:
    path = plugin(
        tmp_path,
        "from typing import Final\n"
        "PAPER = ('A. Author, '\n         'A Title')\n"
        "YEAR: Final = '2024'\n"
        "BOTH = PAPER + ', ' + YEAR\n"
        "CARD = NetworkCard(\n"
        "    name='x', title=f'Title ({YEAR})', entry='A', paper=BOTH, licence='a' 'b',\n"
        "    weights=({'tag': YEAR, 'source': PAPER + ' p. 3'},),\n"
        "    options={'names': [YEAR, ('b', -1)], YEAR: None},\n"
        ")\n"
        "raise RuntimeError('it ran')\n",
    )
    (card,) = read_cards(path, NetworkCard)
    assert card.title == "Title (2024)"
    assert card.paper == "A. Author, A Title, 2024"
    assert card.licence == "ab"
    assert card.weights == ({"tag": "2024", "source": "A. Author, A Title p. 3"},)
    assert card.options == {"names": ["2024", ("b", -1)], "2024": None}


@pytest.mark.parametrize(
    ("what", "name"), ENTRIES, ids=[f"{r.what} {n}".replace(" ", "-") for r, n in ENTRIES]
)
def test_the_card_that_is_read_is_the_one_that_python_makes(
    what: Registry[Card], name: str
) -> None:
    module = sys.modules[what.entry(name).__module__]
    cards = [getattr(module, "CARD", None), *getattr(module, "CARDS", ())]
    if any(card is not None for card in cards):  # an entry may be imported into its file
        assert what.card(name) in cards


def test_files_in_nested_folders_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inner = tmp_path / "segweave" / "things" / "inner"
    inner.mkdir(parents=True)
    for folder, name in ((inner.parent, "outer"), (inner, "nested"), (inner, "_hidden")):
        plugin(folder, f"CARD = NetworkCard(name='{name}', title='t', entry='A')\n", f"{name}.py")
    monkeypatch.setattr(card_files, "__file__", str(tmp_path / "segweave" / "card_files.py"))
    things = Registry("thing", "segweave.things", NetworkCard, "segweave.things")
    assert list(things.cards()) == ["nested", "outer"]
    assert things._found()["nested"][1] == "segweave.things.inner.nested"


def test_two_plugins_of_one_file_name_are_two_modules(
    tmp_path: Path, fresh: Registry[NetworkCard]
) -> None:
    for folder, name in (("a", "twin-a"), ("b", "twin-b")):
        (tmp_path / folder).mkdir()
        text = PLUGIN.format(name=name) + f"\nMine.origin = {folder!r}\n"
        fresh.add_file(plugin(tmp_path / folder, text, "twin.py"))
    assert [fresh.entry(name).origin for name in ("twin-a", "twin-b")] == ["a", "b"]
    assert len(fresh.plugin_hashes) == 2


def test_several_cards_in_one_file(tmp_path: Path) -> None:
    path = plugin(
        tmp_path,
        "CARDS = (ContextCard(name='a', title='first', entry='A'),\n"
        "         ContextCard(name='b', title='second', entry='A'),\n"
        "         NetworkCard(name='c', title='other', entry='A'))\n",
    )
    assert [card.name for card in read_cards(path, ContextCard)] == ["a", "b"]
    assert [card.name for card in read_cards(path, NetworkCard)] == ["c"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("CARD = NetworkCard(nam='x', title='t', entry='e')", "name"),
        ("CARD = NetworkCard(name=1 + x, title='t', entry='e')", "a literal for name"),
        ("CARD = NetworkCard(name=X, title='t', entry='e')\nX = 'below'", "above the card"),
        ("X = 3\nCARD = NetworkCard(name=X, title='t', entry='e')", "constants"),
        ("CARD = NetworkCard(name=f'{1:3}', title='t', entry='e')", "constants"),
        ("CARD = NetworkCard(name='x')", "title"),
        ("CARD = NetworkCard(**{'name': 'x'})", "None"),
        ("def broken(:", "invalid syntax"),
    ],
    ids=[
        "wrong-field",
        "not-a-literal",
        "below",
        "number",
        "format",
        "field-missing",
        "star",
        "syntax",
    ],
)
def test_a_bad_card_is_an_input_error_that_names_the_file(
    tmp_path: Path, text: str, message: str
) -> None:
    path = plugin(tmp_path, text)
    with pytest.raises(InputError) as caught:
        list(read_cards(path, NetworkCard))
    assert message in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_file_that_is_not_text_is_an_input_error(tmp_path: Path) -> None:
    path = tmp_path / "picture.py"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=r"picture\.py"):
        list(read_cards(path, NetworkCard))


def test_add_file_registers_runs_and_hashes(tmp_path: Path, fresh: Registry[NetworkCard]) -> None:
    path = plugin(tmp_path, PLUGIN.format(name="mine-added"), "plugin_added.py")
    assert fresh.add_file(path) == ["mine-added"]
    assert fresh.entry("mine-added")(1, 2, 3).settings == (1, 2, 3)
    assert fresh.plugin_hashes == {str(path): hashlib.sha256(path.read_bytes()).hexdigest()}
    assert fresh.add_file(path) == ["mine-added"], "a second time changes nothing"


def test_a_plugin_cannot_take_a_name_that_exists(
    tmp_path: Path, fresh: Registry[NetworkCard]
) -> None:
    path = plugin(tmp_path, PLUGIN.format(name="unet"), "plugin_taken.py")
    with pytest.raises(UsageError, match="a name that is not taken"):
        fresh.add_file(path)
    assert fresh.card("unet").title != "a plug-in"


def test_a_plugin_that_fails_leaves_no_half_loaded_module(
    tmp_path: Path, fresh: Registry[NetworkCard]
) -> None:
    path = plugin(tmp_path, PLUGIN.format(name="fails") + "\n1 / 0\n", "plugin_fails.py")
    with pytest.raises(ZeroDivisionError):
        fresh.add_file(path)
    assert not [name for name in sys.modules if name.startswith("segweave_plugin_plugin_fails")]
    assert "fails" not in fresh.cards()


def test_entry_points_of_an_installed_package_are_found(
    tmp_path: Path, fresh: Registry[NetworkCard], monkeypatch: pytest.MonkeyPatch
) -> None:
    plugin(tmp_path, PLUGIN.format(name="from-package"), "their_package_networks.py")
    monkeypatch.syspath_prepend(str(tmp_path))
    point = EntryPoint("from-package", "their_package_networks", "segweave.networks")
    monkeypatch.setattr(registry, "entry_points", lambda group: [point])
    assert "from-package" in fresh.cards()
    assert "their_package_networks" not in sys.modules, "listing must not import the package"
    assert fresh.entry("from-package")(1, 2, 3).settings == (1, 2, 3)


def test_an_entry_point_with_an_attribute_takes_the_card_of_its_own_name(
    tmp_path: Path, fresh: Registry[NetworkCard], monkeypatch: pytest.MonkeyPatch
) -> None:
    plugin(
        tmp_path,
        "CARDS = (NetworkCard(name='wanted', title='this one', entry='A'),\n"
        "         NetworkCard(name='unwanted', title='not this', entry='A'))\n",
        "their_two_networks.py",
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    point = EntryPoint("wanted", "their_two_networks:A", "segweave.networks")
    monkeypatch.setattr(registry, "entry_points", lambda group: [point])
    assert "wanted" in fresh.cards()
    assert "unwanted" not in fresh.cards()


def test_register_plugin_refuses_a_missing_file_and_a_file_without_cards(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no file"):
        register_plugin(tmp_path / "absent.py")
    with pytest.raises(InputError, match="at least one CARD"):
        register_plugin(plugin(tmp_path, "x = 1\n"))


@pytest.mark.parametrize("kind", [NetworkCard, ContextCard, DatasetCard, MetricCard, LossCard])
def test_cards_are_frozen_and_share_their_first_fields(kind: type[Card]) -> None:
    assert [f.name for f in fields(kind)][:6] == [f.name for f in fields(Card)]
    card = kind(name="x", title="t", entry="e")
    with pytest.raises(AttributeError):
        card.name = "y"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("body", "line"), [("raise KeyError('a')", 1), ("a = 1\n    return len(a)", 2), ("sorted()", 1)]
)
def test_what_a_plugin_raises_names_it_with_file_and_line(
    tmp_path: Path,
    fresh: Registry[NetworkCard],
    monkeypatch: pytest.MonkeyPatch,
    body: str,
    line: int,
) -> None:
    text = PLUGIN.format(name=f"raises-{line}-{len(body)}") + f"\ndef fails():\n    {body}\n"
    path = plugin(tmp_path, text, "plugin_raises.py")
    monkeypatch.setattr("segweave.plugin_errors.REGISTRIES", (fresh,))
    (name,) = fresh.add_file(path)
    before = len(text.splitlines()) - len(body.splitlines())
    with pytest.raises((KeyError, TypeError)) as caught:
        fresh.attribute(name, "fails")()
    error = plugin_error(caught.value)
    assert error is not None
    assert str(error).startswith(f"plug-in {name} raised {type(caught.value).__name__}: ")
    assert error.file == path
    assert f"line {before + line}, in fails: {body.splitlines()[-1].strip()}" in str(error)
    with pytest.raises(ZeroDivisionError) as caught:
        1 / 0  # noqa: B018
    assert plugin_error(caught.value) is None


def test_a_plugin_that_cannot_be_imported_is_named(
    tmp_path: Path, fresh: Registry[NetworkCard]
) -> None:
    path = plugin(tmp_path, PLUGIN.format(name="fails-again") + "\n1 / 0\n", "plugin_again.py")
    with pytest.raises(ZeroDivisionError) as caught:
        fresh.add_file(path)
    error = plugin_error(caught.value)
    assert error is not None
    assert "plug-in plugin_again.py raised ZeroDivisionError" in str(error)
