"""A planned recipe as YAML, with the reason beside each value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from segweave.workflow.planner.decisions import Decision


def to_text(heading: Sequence[str], decisions: Sequence[Decision]) -> str:
    """The text of the recipe file: comments with the heading, then a line per value, `key: value  #
    reason`; the items of a list of mappings have a line each below the key.
    """
    lines = [f"# {line}".rstrip() for line in heading]
    tree: dict[str, Any] = {}
    for decision in decisions:
        *sections, last = decision.key.split(".")
        inner = tree
        for section in sections:
            inner = inner.setdefault(section, {})
        inner[last] = decision
    return "\n".join([*lines, *_section(tree, "")]) + "\n"


def _section(tree: Mapping[str, Any], indent: str) -> list[str]:
    lines = []
    for key, value in tree.items():
        if not isinstance(value, Decision):
            lines += [f"{indent}{key}:", *_section(value, indent + "  ")]
            continue
        reason = " ".join(value.reason.split())
        items = value.value
        if isinstance(items, list) and items and isinstance(items[0], dict):
            lines.append(f"{indent}{key}:  # {reason}")
            lines += [f"{indent}  - {_flow(item)}" for item in items]
        else:
            lines.append(f"{indent}{key}: {_flow(items)}  # {reason}")
    return lines


def _flow(value: Any) -> str:
    """A value as YAML in one line."""
    text = yaml.safe_dump(
        value, default_flow_style=True, width=10**6, allow_unicode=True, sort_keys=False
    )
    return str(text).removesuffix("\n").removesuffix("\n...")
