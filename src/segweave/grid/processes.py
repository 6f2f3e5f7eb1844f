"""Processes that run the command `segweave`, and how they are stopped."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from segweave.registry import REGISTRIES

Process = subprocess.Popen[bytes]
PARENT = "SEGWEAVE_PARENT"
_PR_SET_PDEATHSIG = 1
_PATIENCE = 60.0  # seconds that a process has to end the step that it is in


def start(call: Sequence[str], log: Path, threads: int) -> Process:
    """Start `segweave CALL` with that many threads; its output is appended to `log`."""
    count = {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    with log.open("ab") as output:
        return subprocess.Popen(
            # -P: files of the current folder must not stand in for modules (a random.py there).
            [sys.executable, "-P", "-m", "segweave", *_plugins(), *call],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **count, PARENT: str(os.getpid())},
            # Ctrl-C in the terminal would reach it too, and a second one makes a training give up
            # the step that it wanted to save.
            start_new_session=True,
        )


def end_with_parent() -> None:
    """Where another process started this one with `start`, let the system interrupt this one (as
    Ctrl-C does) when that one dies, so that nobody's training goes on unseen. Linux only.
    """
    parent = os.environ.get(PARENT, "")
    if sys.platform != "linux" or not parent.isdigit():
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGINT)
    if os.getppid() != int(parent):
        signal.raise_signal(signal.SIGINT)  # it died before this line


def stop(processes: Sequence[Process]) -> None:
    """Ask processes to stop as Ctrl-C does; after a minute, or a second Ctrl-C, kill them."""
    try:
        for process in processes:
            if process.poll() is None:
                process.send_signal(signal.SIGINT if os.name == "posix" else signal.SIGTERM)
        until = time.monotonic() + _PATIENCE
        for process in processes:
            process.wait(timeout=max(until - time.monotonic(), 0.1))
    except subprocess.TimeoutExpired:
        pass
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()
                process.wait()


@contextmanager
def signals_as_interrupts() -> Iterator[None]:
    """Let SIGTERM and SIGHUP (kill, a closed terminal) raise KeyboardInterrupt, as Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    numbers = [getattr(signal, name, None) for name in ("SIGTERM", "SIGHUP")]
    # What somebody chose to ignore (nohup) stays ignored.
    wanted = [n for n in numbers if n is not None and signal.getsignal(n) != signal.SIG_IGN]
    before = [(number, signal.signal(number, handle)) for number in wanted]
    try:
        yield
    finally:
        for number, handler in before:
            signal.signal(number, handler)


def _plugins() -> list[str]:
    """The files that this process was given with --plugin, for the processes that it starts."""
    files = dict.fromkeys(file for kind in REGISTRIES for file in kind.plugin_hashes)
    return [word for file in files for word in ("--plugin", file)]
