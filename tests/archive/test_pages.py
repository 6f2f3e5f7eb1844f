"""All series of an archive are found, whatever it makes of limit and offset."""

from __future__ import annotations

from typing import Any

import pytest

from segweave.archive.dicomweb import DicomWeb

EVERY = [{"number": n} for n in range(1200)]


def with_limit(most: int) -> Any:
    def search(limit: int, offset: int) -> list[dict[str, Any]]:
        return EVERY[offset : offset + min(limit, most)]

    return search


def without_offset(limit: int, offset: int) -> list[dict[str, Any]]:
    return EVERY


@pytest.mark.parametrize("search", [with_limit(10**6), with_limit(7), without_offset])
def test_every_series_is_found_once(search: Any) -> None:
    archive = object.__new__(DicomWeb)
    assert archive._pages(search) == EVERY
    assert archive._pages(lambda limit, offset: []) == []
