"""Load on the real service in a process: many jobs from several clients, and kills."""

from __future__ import annotations

import random
import signal
import sqlite3
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

_DEADLINE = 600.0


class Server:
    """`segweave serve` in a process, which can be killed and started again on the same jobs. A
    context manager: it is gone at the end.
    """

    def __init__(self, model: Path, folder: Path, *options: str) -> None:
        self.folder = folder
        self.logs: list[Path] = []
        self._command = [
            sys.executable, "-m", "segweave", "serve", str(model), "--port", "0", "--device", "cpu",
            "--jobs-folder", str(folder / "jobs"), *options,
        ]  # fmt: skip
        self.start()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()

    def start(self) -> None:
        """Start it, and wait until it answers."""
        self.logs.append(self.folder / f"log{len(self.logs)}")
        with self.logs[-1].open("wb") as log:
            self.process = subprocess.Popen(
                self._command, stdout=subprocess.PIPE, stderr=log, text=True
            )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line.startswith("address:"):
            raise SystemExit(self.logs[-1].read_text())
        self.url = line.split()[1]

    def kill(self) -> None:
        """Kill it without a warning (`kill -9`)."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self) -> None:
        """End it in order."""
        self.process.terminate()
        self.process.wait()

    @property
    def memory(self) -> float:
        """Its resident size in MB."""
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) / 1024
        raise SystemExit("no resident size in /proc")

    @property
    def log(self) -> str:
        """All that it has logged."""
        return "".join(log.read_text() for log in self.logs)


@dataclass
class Seen:
    """What the clients saw."""

    accepted: list[str] = field(default_factory=list)
    refused: int = 0
    broken: int = 0
    waiting: int = 0
    seconds: list[float] = field(default_factory=list)
    faults: Counter[str] = field(default_factory=Counter)
    memory: list[float] = field(default_factory=list)


def _send(http: httpx.Client, server: Server, image: bytes, seen: Seen) -> str | None:
    """The id of a job that was accepted; None where the queue is full or the server is gone."""
    try:
        answer = http.post(f"{server.url}/jobs", files={"files": ("a.nii.gz", image)})
    except httpx.HTTPError:
        seen.broken += 1
        time.sleep(0.2)
        return None
    if answer.status_code == 202:
        seen.accepted.append(answer.json()["id"])
        return seen.accepted[-1]
    if answer.status_code not in (429, 503) or "retry-after" not in answer.headers:
        seen.faults[f"POST /jobs was answered with {answer.status_code}"] += 1
    seen.refused += 1
    time.sleep(0.2)
    return None


def _client(
    server: Server, image: bytes, expected: bytes, jobs: list[int], seen: Seen, keep: bool
) -> None:
    """Send jobs one after the other, wait for each, and compare what it gives."""
    with httpx.Client(timeout=120, trust_env=False) as http:
        while jobs:
            try:
                jobs.pop()
            except IndexError:
                return
            start, id = time.monotonic(), None
            while id is None:
                id = _send(http, server, image, seen)
            job: dict[str, Any] = {"state": "queued"}
            while job["state"] not in ("done", "failed"):
                if time.monotonic() - start > _DEADLINE:
                    seen.faults["a job did not end"] += 1
                    return
                time.sleep(0.05)
                job = http.get(f"{server.url}/jobs/{id}").json()
            seen.seconds.append(time.monotonic() - start)
            if job["state"] == "failed":
                seen.faults[f"a job failed with {job['error']['status']}"] += 1
                continue
            content = http.get(server.url + job["results"]["array"]).content
            if content != expected:
                seen.faults["a job gave another label map"] += 1
            if not keep:
                http.delete(f"{server.url}/jobs/{id}")


def first_result(server: Server, image: bytes) -> bytes:
    """What the service makes of the image, when nothing else is asked of it."""
    with httpx.Client(timeout=120, trust_env=False) as http:
        answer = http.post(f"{server.url}/jobs", files={"files": ("a.nii.gz", image)})
        if answer.status_code != 202:
            raise SystemExit(f"the first job was refused: {answer.text}")
        id = answer.json()["id"]
        while (job := http.get(f"{server.url}/jobs/{id}").json())["state"] != "done":
            if job["state"] == "failed":
                raise SystemExit(f"the first job failed: {job['error']}")
            time.sleep(0.02)
        content = http.get(server.url + job["results"]["array"]).content
        http.delete(f"{server.url}/jobs/{id}")
        return content


def load(model: Path, image: bytes, folder: Path, jobs: int, clients: int, queue: int) -> Seen:
    """Jobs from clients that send more than the queue takes; the memory after each tenth."""
    with Server(model, folder, "--limit-queue", str(queue)) as server:
        return _load(server, image, jobs, clients, queue)


def _load(server: Server, image: bytes, jobs: int, clients: int, queue: int) -> Seen:
    seen = Seen()
    expected = first_result(server, image)
    todo = list(range(jobs))
    threads = [
        threading.Thread(target=_client, args=(server, image, expected, todo, seen, False))
        for _ in range(clients)
    ]
    for thread in threads:
        thread.start()
    # Clients that wait for their job never fill the queue: these do not wait.
    flood = threading.Event()
    pushing = threading.Thread(target=_flood, args=(server, image, flood, seen, queue))
    pushing.start()
    tenth = 0
    while any(thread.is_alive() for thread in threads):
        with httpx.Client(trust_env=False) as http:
            seen.waiting = max(seen.waiting, http.get(f"{server.url}/health").json()["waiting"])
        if len(seen.seconds) * 10 >= tenth * jobs:
            seen.memory.append(server.memory)
            tenth += 1
        time.sleep(0.02)
    flood.set()
    pushing.join()
    with httpx.Client(timeout=60, trust_env=False) as http:
        while http.get(f"{server.url}/health").json()["waiting"]:
            time.sleep(0.05)
        time.sleep(0.5)
        seen.memory.append(server.memory)
    if seen.waiting > queue:
        seen.faults[f"{seen.waiting} jobs waited"] += 1
    server.stop()
    _check_log(server, seen, once=True)
    return seen


def _flood(server: Server, image: bytes, end: threading.Event, seen: Seen, queue: int) -> None:
    """Fill the queue now and then, and delete what was accepted."""
    with httpx.Client(timeout=120, trust_env=False) as http:
        while not end.wait(2.0):
            ids = [_send(http, server, image, seen) for _ in range(queue)]
            for id in filter(None, ids):
                http.delete(f"{server.url}/jobs/{id}")
                # They end by being deleted.
                seen.accepted.remove(id)


def kills(model: Path, image: bytes, folder: Path, count: int, clients: int, seed: int = 0) -> Seen:
    """`kill -9` at random points while clients send; then every accepted job ends once."""
    with Server(model, folder) as server:
        return _kills(server, image, count, clients, random.Random(seed))


def _kills(server: Server, image: bytes, count: int, clients: int, draw: random.Random) -> Seen:
    seen, end = Seen(), threading.Event()
    expected = first_result(server, image)

    def push() -> None:
        with httpx.Client(timeout=120, trust_env=False) as http:
            while not end.is_set():
                _send(http, server, image, seen)

    threads = [threading.Thread(target=push) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for _ in range(count):
        time.sleep(draw.uniform(0.0, 2.0))
        server.kill()
        server.start()
    time.sleep(0.5)
    end.set()
    for thread in threads:
        thread.join()
    _ended(server, expected, seen)
    server.stop()
    _check_log(server, seen, once=False)
    return seen


def _ended(server: Server, expected: bytes, seen: Seen) -> None:
    with httpx.Client(timeout=120, trust_env=False) as http:
        until = time.monotonic() + _DEADLINE
        for id in seen.accepted:
            while True:
                answer = http.get(f"{server.url}/jobs/{id}")
                if answer.status_code != 200:
                    seen.faults["an accepted job was lost"] += 1
                    break
                job = answer.json()
                if job["state"] == "done":
                    if http.get(server.url + job["results"]["array"]).content != expected:
                        seen.faults["a job gave another label map"] += 1
                    break
                if job["state"] == "failed" or time.monotonic() > until:
                    seen.faults[f"a job is {job['state']} at the end"] += 1
                    break
                time.sleep(0.05)
    # Also those whose answer a kill swallowed: they were accepted too.
    while True:
        with sqlite3.connect(server.folder / "jobs" / "jobs.sqlite") as table:
            states = dict(table.execute("select state, count(*) from jobs group by state"))
        if not {"queued", "running"} & set(states) or time.monotonic() > until:
            break
        time.sleep(0.1)
    for state in set(states) - {"done"}:
        seen.faults[f"{states[state]} jobs are {state} in the table"] += 1


def _check_log(server: Server, seen: Seen, *, once: bool) -> None:
    """No job is done twice; without kills each is logged as done once."""
    log = server.log
    done = Counter(
        line.split("job ")[1].split(":")[0] for line in log.splitlines() if ": done in" in line
    )
    for id in seen.accepted:
        if done[id] > 1 or (once and done[id] != 1):
            seen.faults[f"a job was done {done[id]} times"] += 1
    if "unexpected" in log or "Traceback" in log:
        lines = [line for line in log.splitlines() if "unexpected" in line or "Error" in line]
        seen.faults |= Counter(line.partition(" unexpected ")[2] or line for line in lines)


def median_and_most(seconds: list[float]) -> str:
    """The median and the largest of some seconds."""
    return f"{statistics.median(seconds):.1f}, at most {max(seconds):.1f}" if seconds else "–"
