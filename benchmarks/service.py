"""The service under load, under kills and under malformed requests: `python benchmarks/service.py`.

A tiny network with random weights segments a synthetic heart. Three tables: jobs of several clients
with a short queue, and the memory of the server; `kill -9` at random points, after which every
accepted job has to be done once; malformed requests, of which none may be answered with 500. Prints
benchmarks/service.md, and ends with 1 where anything was at fault.
"""

from __future__ import annotations

import argparse
import asyncio
import gzip
import os
import platform
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import nibabel
import numpy as np

import _service_load as real
import _service_requests as malformed
import segweave
from _service_images import images
from segweave.data.specs import TargetSpec
from segweave.phantoms.cardiac import write_cardiac

SETTINGS = {
    "network": {"name": "unet", "options": {"width": 2}},
    "context": {"name": "mean"},
    "weaving": {"at": "bottleneck"},
    "input": {"channels": ["grey"], "size": [32, 32], "slices": 3},
}
TARGET = TargetSpec(names=("background", "right ventricle", "myocardium", "left ventricle"))


def make(folder: Path) -> tuple[Path, bytes]:
    """A model folder, and a volume."""
    network = segweave.create_network("unet", in_channels=1, classes=4, width=2)
    woven = segweave.weave(network, "mean", at="bottleneck", slices=3)
    model = segweave.save_model(folder / "tiny", woven, SETTINGS, TARGET)
    write_cardiac(folder / "hearts", 1, size=(96, 96), slices=40)
    paths = sorted((folder / "hearts").rglob("*_frame*.nii.gz"))
    voxels = nibabel.load(next(path for path in paths if "_gt" not in path.name))
    # With an affine that agrees with the voxel size, which that of the data set does not.
    affine = np.diag([*voxels.header.get_zooms()[:3], 1.0])
    image = nibabel.Nifti1Image(np.asarray(voxels.dataobj), affine)
    return model, gzip.compress(image.to_bytes(), mtime=0)


def rows(title: str, found: dict[str, object], faults: Counter[str]) -> int:
    """Print a table and its faults; returns how many there were."""
    print(f"\n## {title}\n\n| what | figure |\n| --- | ---: |")
    for name, value in found.items():
        print(f"| {name} | {value} |")
    print(f"| faults | {sum(faults.values())} |")
    for what, count in faults.most_common():
        print(f"\n- {count} times: {what}")
    sys.stdout.flush()
    return sum(faults.values())


def load(folder: Path, model: Path, image: bytes, jobs: int, clients: int) -> int:
    """The first table."""
    queue, start = 6, time.monotonic()
    folder.mkdir()
    seen = real.load(model, image, folder, jobs, clients, queue)
    settled, last = seen.memory[min(2, len(seen.memory) - 1)], seen.memory[-1]
    return rows(
        "Load",
        {
            "jobs": jobs,
            "clients": clients,
            "jobs that ended with the right label map": len(seen.seconds)
            - sum(seen.faults.values()),
            "longest queue, of a limit of": f"{seen.waiting} of {queue}",
            "requests that were refused with 429 and Retry-After": seen.refused,
            "seconds of a job with its wait, median": real.median_and_most(seen.seconds),
            "seconds in all": f"{time.monotonic() - start:.0f}",
            "memory of the server after a fifth of the jobs, MB": f"{settled:.0f}",
            "memory at the end, MB": f"{last:.0f}",
        },
        seen.faults,
    )


def kills(folder: Path, model: Path, image: bytes, count: int) -> int:
    """The second table."""
    start = time.monotonic()
    folder.mkdir()
    seen = real.kills(model, image, folder, count, clients=4)
    return rows(
        "Kills",
        {
            "kill -9 at a random point": count,
            "jobs that were accepted": len(seen.accepted),
            "connections that broke": seen.broken,
            "seconds in all": f"{time.monotonic() - start:.0f}",
        },
        seen.faults,
    )


def requests(
    folder: Path, model: Path, count: int, per_operation: int, seed: int, verbose: bool
) -> int:
    """The third table."""
    from segweave.serve.app import create_app
    from segweave.serve.limits import Limits
    from segweave.serve.models import load_models
    from segweave.serve.service import Service

    limits = Limits(queue=10**6, bytes=1 << 22, voxels=10**6, files=50, keep_hours=0.001)
    models = load_models([model], device="cpu")
    start = time.monotonic()
    with malformed.heard() as unexpected, Service(models, folder, limits) as service:
        gate = create_app(service)
        openapi = gate._application.openapi()  # type: ignore[attr-defined]
        mutations = malformed.Mutations(openapi, images(), seed)
        answers = malformed.Answers()
        schema = list(malformed.by_schema(openapi, per_operation))

        def every() -> Iterator[tuple[str, malformed.Request]]:
            yield from schema
            yield from islice(mutations, max(0, count - len(schema)))

        asyncio.run(_ask_all(gate, every(), mutations, answers, unexpected))
        while service.table.waiting():
            time.sleep(0.1)
        failed = [job for job in service.table.every() if job.status == 500]
        answers.faults.update(f"an accepted job failed with 500: {job.message}" for job in failed)
    if verbose:
        for what, request in answers.examples.items():
            print(what, repr(request)[:3000], file=sys.stderr)
    statuses = ", ".join(f"{code}: {answers.statuses[code]:,}" for code in sorted(answers.statuses))
    return rows(
        "Malformed requests",
        {
            "requests": f"{answers.total:,}",
            "of them made by schemathesis of the OpenAPI": f"{len(schema):,}",
            "routes": len(answers.routes),
            "answered with": statuses,
            "accepted as jobs": f"{answers.statuses[202]:,}",
            "seconds in all": f"{time.monotonic() - start:.0f}",
        },
        answers.faults,
    )


async def _ask_all(
    gate: object,
    every: Iterator[tuple[str, malformed.Request]],
    mutations: malformed.Mutations,
    answers: malformed.Answers,
    unexpected: malformed.Unexpected,
) -> None:
    """One request after the other; what is at fault is noted."""
    import json

    for route, request in every:
        try:
            status, body = await asyncio.wait_for(
                malformed.ask(gate, request, mutations.draw), timeout=60
            )
        except TimeoutError:
            answers.fault(f"no answer within a minute: {route}", request)
            continue
        except Exception as error:
            answers.fault(f"{type(error).__name__} left the application: {route}", request)
            continue
        answers.statuses[status] += 1
        answers.routes[route] += 1
        if status == 202 and body:
            mutations.jobs.append(json.loads(body)["id"])
            del mutations.jobs[:-200]
        if status >= 500 and status not in (503, 507):
            answers.fault(f"{status}: {route}", request)
        for line in unexpected.lines:
            answers.fault(line, request)
        unexpected.lines.clear()


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few of each")
    parser.add_argument("--only", choices=("load", "kills", "requests"), help="one table")
    parser.add_argument("--jobs", type=int, default=200)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--per-operation", type=int, default=300, help="of schemathesis")
    parser.add_argument("--seed", type=int, default=0, help="of the malformed requests")
    parser.add_argument("--verbose", action="store_true", help="show a request of each fault")
    chosen = parser.parse_args()
    if chosen.quick:
        chosen.jobs, chosen.clients, chosen.kills = 12, 4, 2
        chosen.requests, chosen.per_operation = 400, 6
    print(f"{platform.machine()}, segweave {segweave.__version__}, a CPU, one thread.")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    faults = 0
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        model, image = make(folder)
        if chosen.only in (None, "load"):
            faults += load(folder / "load", model, image, chosen.jobs, chosen.clients)
        if chosen.only in (None, "kills"):
            faults += kills(folder / "kills", model, image, chosen.kills)
        if chosen.only in (None, "requests"):
            faults += requests(
                folder / "requests",
                model,
                chosen.requests,
                chosen.per_operation,
                chosen.seed,
                chosen.verbose,
            )
    raise SystemExit(faults > 0)


if __name__ == "__main__":
    main()
