"""The plain words of the project: what the glossary replaces stays replaced."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
_NOUNS = "file|place|number|case|patient|run|class|fold|seed|arm|line|name|row|image|slice|step"
_NO = r"longer|more|other|one\b|such|need|reason|file|folder|store"
_ODD = "number|length|size|sides?|kernels?|heights?|widths?|windows?|or even"
# Not this word, but that one. `docs/fidelity.md` and reference files quote papers as they are.
WORDS = {
    rf"\bone (?:{_NOUNS}) (?:a|an) \w+": "one X per Y",
    r"\btold\b": "reported, adapted, identified by",
    r"(?<!\bcan )\btells? (?!apart)": "report, identify, name",
    r"\b(?:is|are|was|were) said\b": "state, report",
    r"\bmade (?:images?|hearts?|person|people|patients?|pictures?|volumes?|scans?)\b": "synthetic",
    r"\bmends?\b|\bmended\b": "fix",
    r"\bdressed as\b": "wrapped as",
    r"\bhands? over\b": "returns, passes",
    r"\bof (?:one's|its|their) own\b": "your own, separate",
    rf"(?<!\bthere )\bis no (?!{_NO})": "is not a",
    r"\brooms?\b(?! for| on| left)": "package",
    rf"\bodd (?!{_ODD})": "unusual, invalid",
}
SKIPPED = ("tests/reference/", "docs/fidelity.md", "tests/test_language.py", "benchmarks/")


def _texts() -> list[Path]:
    call = ["git", "ls-files", "src", "tests", "docs", "README.md", "CONTRIBUTING.md", "Makefile"]
    try:
        listed = subprocess.run(call, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    kinds = (".py", ".md", ".yaml", ".html", "Makefile")
    return [
        ROOT / name
        for name in listed.splitlines()
        if name.endswith(kinds) and not name.startswith(SKIPPED) and (ROOT / name).is_file()
    ]


@pytest.mark.parametrize("pattern", WORDS, ids=WORDS.values())
def test_no_private_words(pattern: str) -> None:
    found = []
    for file in _texts():
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
            if re.search(pattern, line):
                found.append(f"{file.relative_to(ROOT)}:{number}: {line.strip()[:90]}")
    assert not found, f"write {WORDS[pattern]!r} instead:\n" + "\n".join(found[:40])
