"""`networks`, `contexts` and `info` say what the cards say."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from segweave import registry
from segweave.cli.app import ORDER

from .conftest import Command


@pytest.mark.parametrize("what", ["networks", "contexts"])
def test_every_card_is_listed(command: Command, what: str) -> None:
    cards = getattr(registry, what).cards()
    table = command(what)
    assert table.code == 0
    for name in cards:
        assert name in table.out
    listed = json.loads(command(what, "--json").out)
    assert [card["name"] for card in listed] == list(cards)
    assert all(card["title"] == cards[card["name"]].title for card in listed)


def test_one_network_in_detail(command: Command) -> None:
    seen = command("networks", "timm-unet").out
    assert "the map at the size of the shallowest skip" in seen
    assert "the map between encoder and decoder" in seen
    assert "tf_efficientnet_lite0" in seen
    assert "Apache-2.0" in seen
    assert [card["name"] for card in json.loads(command("networks", "unet", "--json").out)] == [
        "unet"
    ]
    command("networks", "unett").refused("did you mean unet")


def test_check_tries_networks_and_names_what_fails(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = command("networks", "--check", "--only", "unet")
    assert seen.code == 0
    assert "11 of 11" in seen.out
    assert "trying networks: 11 of 11" in seen.err
    command("networks", "--only", "unet").refused("--check beside --only")
    command("networks", "--check", "--only", "unett").refused("did you mean unet")

    def failing(*_: object, **__: object) -> None:
        raise ZeroDivisionError("no such luck")

    monkeypatch.setattr("segweave.workflow.check_networks.weave", failing)
    seen = command("networks", "dwunet", "--check", "--json")
    assert seen.code == 1
    assert "failed: dwunet" in seen.err
    trials = json.loads(seen.out)
    assert len(trials) == 11
    assert {trial["error"] for trial in trials} == {"ZeroDivisionError: no such luck"}


def test_contexts_by_kind(command: Command) -> None:
    listed = json.loads(command("contexts", "--kind", "control", "--json").out)
    assert {"identity", "mean", "conv"} <= {card["name"] for card in listed}
    assert {card["kind"] for card in listed} == {"control"}
    command("contexts", "--kind", "controll").refused("did you mean control?")


def test_a_plugin_file_is_listed(command: Command, tmp_path: Path) -> None:
    path = tmp_path / "extra_network.py"
    path.write_text(
        "from segweave.registry import NetworkCard\n"
        "CARD = NetworkCard(name='from-a-file', title='of a plug-in', entry='Thing', fixed=(64,))\n"
        "class Thing: ...\n"
    )
    try:
        seen = command("--plugin", path, "networks")
        assert "from-a-file" in seen.out
        assert "64×64 only" in seen.out
    finally:
        registry.networks._found().pop("from-a-file", None)


def test_a_plugin_that_is_missing_or_empty_is_refused(command: Command, tmp_path: Path) -> None:
    command("--plugin", tmp_path / "absent.py", "networks").refused("absent.py", "no file")
    (tmp_path / "empty.py").write_text("")
    command("--plugin", tmp_path / "empty.py", "networks").refused("at least one CARD")


def test_info_of_the_installation(command: Command) -> None:
    text = command("info").out
    assert "torch" in text
    assert "extra train" in text
    found = json.loads(command("info", "--json").out)
    assert found["devices"].startswith("cpu")


def test_info_names_the_command_that_installs_what_is_missing(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    from segweave.cli import info

    monkeypatch.setitem(info.EXTRAS, "report", ("surely-not-installed",))
    assert 'pip install "segweave[report]"' in command("info").out


@pytest.mark.parametrize("name", ORDER)
def test_every_command_explains_itself_with_examples(command: Command, name: str) -> None:
    text = command(name, "--help").out
    assert "Examples" in text
    assert text.count(f"segweave {name}") + text.count("--plugin mine.py") >= 2
    assert len(text) > 600


def test_the_help_lists_the_commands_in_their_order(command: Command) -> None:
    lines = command("--help").out.partition("Commands")[2].splitlines()
    shown = [line.split()[1] for line in lines if re.match(r"│ [a-z]", line)]
    assert tuple(shown) == ORDER


def test_a_wrong_command_names_the_nearest(command: Command) -> None:
    seen = command("trian")
    assert seen.code == 2
    assert "train" in seen.err
