"""The files of the page: they ask nobody else, run under a strict policy, and can be read."""

from __future__ import annotations

import json
import re

from segweave.serve.gate import _HEADERS
from segweave.serve.pages import STATIC


def test_the_files_of_the_page_ask_nobody_else() -> None:
    for file in STATIC.glob("*.*"):
        text = file.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"\w+://|[\"'(]//", text), file
    text = (STATIC / "index.html").read_text(encoding="utf-8")
    assert not re.search(r"<style|style=|<script(?! type=.module. src=)|\son\w+=", text)


def _contrast(one: str, two: str) -> float:
    def light(colour: str) -> float:
        full = colour if len(colour) == 7 else "#" + "".join(2 * c for c in colour[1:])
        parts = [int(full[k : k + 2], 16) / 255 for k in (1, 3, 5)]
        r, g, b = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
        return 0.2126 * r + 0.7152 * g + 0.0722 * b

    high, low = sorted((light(one), light(two)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_text_has_contrast_in_light_and_dark() -> None:
    text = (STATIC / "page.css").read_text(encoding="utf-8")
    themes = [dict(re.findall(r"--([\w-]+): (#\w+)", part)) for part in text.split("@media")[:2]]
    assert all(len(theme) == 12 for theme in themes)
    for theme in themes:
        for front, backs in (
            ("text", ("back", "panel", "drop", "warn-back", "alarm-back")),
            ("soft", ("back", "panel", "drop")),
            ("accent", ("back", "panel", "warn-back", "alarm-back")),
            ("on-accent", ("accent",)),
        ):
            for back in backs:
                assert _contrast(theme[front], theme[back]) >= 4.5, (front, back)


def test_the_policy_has_no_exception() -> None:
    policy = dict(_HEADERS)[b"content-security-policy"].decode()
    assert "unsafe" not in policy
    assert "*" not in policy
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    assert rules["default-src"] == rules["base-uri"] == rules["frame-ancestors"] == "'none'"
    assert rules["script-src"] == rules["style-src"] == rules["connect-src"] == "'self'"


def test_the_lock_file_of_the_viewer_has_no_addresses() -> None:
    folder = STATIC.parents[3] / "page"
    lock = json.loads((folder / "package-lock.json").read_text(encoding="utf-8"))
    wanted = json.loads((folder / "package.json").read_text(encoding="utf-8"))["dependencies"]
    assert "resolved" not in str(lock)
    for name, version in wanted.items():
        package = lock["packages"][f"node_modules/{name}"]
        assert package["version"] == version
        assert package["integrity"].startswith("sha512-")
