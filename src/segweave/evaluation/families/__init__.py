"""Protocols beside `clean`, one file a family of data sets: what its released evaluation computes,
and other rules. A file declares `PROTOCOLS`; to add one is to add a file.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping

from segweave.errors import UsageError
from segweave.evaluation.protocols import Protocol


def protocols_of_families() -> Mapping[str, Protocol]:
    """Every protocol of the files in this folder by name, in alphabetical order; raises UsageError
    where two share a name or a data set.
    """
    found: dict[str, Protocol] = {}
    owners: dict[str, str] = {}
    for file in pkgutil.iter_modules(__path__):
        for protocol in importlib.import_module(f"{__name__}.{file.name}").PROTOCOLS:
            taken = {protocol.name} & found.keys() | set(protocol.datasets) & owners.keys()
            if taken:
                raise UsageError(
                    f"listing protocols: {file.name}",
                    expected="names and data sets that no other protocol has",
                    found=", ".join(sorted(taken)),
                )
            found[protocol.name] = protocol
            owners.update(dict.fromkeys(protocol.datasets, protocol.name))
    return dict(sorted(found.items()))
