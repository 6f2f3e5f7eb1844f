"""Turns whatever ends a command into one message on stderr and an exit code, without a traceback
unless it was asked for.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import sys
import traceback
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from segweave.errors import SegweaveError

P = ParamSpec("P")
R = TypeVar("R")

INTERRUPTED = 130
_BROKEN_PIPE = 141


class Settings:
    """What the options before the command's name set; `debug` shows tracebacks."""

    debug = False


def guarded(function: Callable[P, R]) -> Callable[P, R]:
    """Wrap a command so that every exception becomes a message and `SystemExit` with its code.

    The wrapped function keeps its signature, from which the command's options are made.
    """

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            result = function(*args, **kwargs)
            sys.stdout.flush()
        except (SystemExit, GeneratorExit):
            raise
        except BaseException as error:
            if _is_parsing(error):
                raise
            if Settings.debug:
                traceback.print_exception(error)
            raise SystemExit(report(error)) from None
        return result

    return run


def report(error: BaseException) -> int:
    """Print what a person needs to know about `error` to stderr; returns the exit code."""
    if isinstance(error, SegweaveError):
        stopped = error.exit_code == INTERRUPTED
        _say(f"{'interrupted' if stopped else 'error'}: {error}")
        return error.exit_code
    if isinstance(error, KeyboardInterrupt):
        _say("interrupted: nothing half-written is left; the same command again continues")
        return INTERRUPTED
    if isinstance(error, BrokenPipeError):
        # Whoever read our output has gone; Python's flush at exit must not complain either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return _BROKEN_PIPE
    if isinstance(error, MemoryError) or _is_gpu_memory(error):
        _say(
            "error: not enough memory\n"
            "  what to do: a smaller batch (--set training.batch_size=...), a smaller image size, "
            "or --device cpu"
        )
        return 1
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        _say(
            f"error: no space left for writing{_of(error)}\n"
            "  what to do: free some space or choose another folder; earlier results are untouched"
        )
        return 1
    if isinstance(error, OSError):
        _say(f"error: {error.strerror or error}{_of(error)}\n{_HINT}")
        return 1
    _say(f"error: unexpected {type(error).__name__}: {_first_line(error)}\n{_HINT}")
    return 1


_HINT = "  what to do: run it again as `segweave --debug ...` to see where, and report it"


def _of(error: OSError) -> str:
    return f": {error.filename}" if error.filename else ""


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else "no message"


def _is_parsing(error: BaseException) -> bool:
    # The parser's own exits and usage errors; it prints them itself.
    return type(error).__module__.split(".")[0] in ("typer", "click")


def _is_gpu_memory(error: BaseException) -> bool:
    return type(error).__name__ == "OutOfMemoryError"


def _say(message: str) -> None:
    with contextlib.suppress(OSError, ValueError):
        print(message, file=sys.stderr, flush=True)  # noqa: T201
