"""Runs a command: reads the options before its name, and turns whatever ends it, a wrong option
too, into one message on stderr and an exit code, without a traceback unless the user asked for one.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import io
import logging
import os
import re
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, ParamSpec, TypeVar

import typer
from typer.core import TyperCommand

from segweave.errors import SegweaveError, UsageError, nearest
from segweave.plugin_errors import plugin_error
from segweave.words import printable

P = ParamSpec("P")
R = TypeVar("R")

INTERRUPTED = 130
_BROKEN_PIPE = 141
_DEVICE = re.compile(r"auto|cpu|cuda(:\d+)?")
_WRONG_CHOICE = re.compile(r"'(?P<value>.*)' is not one of (?P<known>'.*')")


# The options of `segweave` itself, with what follows them.
_BEFORE_THE_COMMAND = {"--plugin": " FILE.py", "--debug": ""}


# Words of other programs for parts of a split → ours.
_OTHER_WORDS = {"val": "validation", "valid": "validation", "train": "training"}


class Command(TyperCommand):
    """A command that answers a wrong value of a fixed choice with the nearest right one."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the words of the command line; raises UsageError for a wrong choice."""
        given = list(args)  # the parser empties its list
        before = [one for one in args if one.partition("=")[0] in _BEFORE_THE_COMMAND]
        if before and before[0] not in self._options():
            raise UsageError(
                "reading the command line",
                expected=f"{before[0]} before the command",
                found=f"{before[0]} behind it",
                remedy=f"segweave {before[0]}{_BEFORE_THE_COMMAND[before[0].partition('=')[0]]} "
                f"{ctx.command_path.split()[-1]} ...",
            )
        try:
            return super().parse_args(ctx, args)
        except typer.BadParameter as error:
            wrong = _WRONG_CHOICE.search(error.message)
            if wrong is None:
                raise
            option = error.param.opts[0] if error.param is not None else ""
            usual = _OTHER_WORDS.get(wrong["value"])
            if usual is not None and f"'{usual}'" in wrong["known"]:
                return self.parse_args(ctx, _replaced(given, option, wrong["value"], usual))
            raise UsageError(
                "reading the command line",
                found=f"{option} {wrong['value']}",
                remedy=nearest(wrong["value"], re.findall(r"'([^']*)'", wrong["known"])),
            ) from None

    def _options(self) -> set[str]:
        """The options that the command itself has."""
        return {name for parameter in self.params for name in parameter.opts}


def _replaced(words: list[str], option: str, value: str, by: str) -> list[str]:
    """The words of a command line with another value of an option."""
    found = list(words)
    for index, word in enumerate(words):
        if word == f"{option}={value}":
            found[index] = f"{option}={by}"
        elif word == value and index and words[index - 1] == option:
            found[index] = by
    return found


def check_device(value: str) -> str:
    """The name of a device, or UsageError for wrong syntax. Whether there is such a device is asked
    of torch later.
    """
    if _DEVICE.fullmatch(value) is None:
        raise UsageError(
            "choosing a device", expected="auto, cpu, cuda or cuda:NUMBER", found=repr(value)
        )
    return value


class Settings:
    """Set by the options before the command's name; `debug` shows tracebacks."""

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


def _show_version(wanted: bool) -> None:
    if wanted:
        from segweave import __version__

        typer.echo(f"segweave {__version__}")
        raise typer.Exit


@guarded
def common(
    plugin: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE.py",
            help="Register the networks, context modules, data sets, metrics and losses of your "
            "file (it is run). May be given several times.",
        ),
    ] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks of errors.")] = False,
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version.", callback=_show_version, is_eager=True),
    ] = False,
) -> None:
    """Segment medical images with context modules woven into any network.

    A context module reads the feature maps of neighbouring slices and returns one. Prepare a data
    set once, train with a recipe, predict files in their own geometry, and score under a protocol
    that states its rules. Research software, not a medical device.
    """
    Settings.debug = debug
    if "SEGWEAVE_PARENT" in os.environ:
        from segweave.grid.processes import end_with_parent

        end_with_parent()
    if not debug and not sys.warnoptions:
        # Warnings of libraries are for developers; users get errors and notes.
        warnings.simplefilter("ignore")
    if plugin:
        from segweave.registry import register_plugin

        for file in plugin:
            register_plugin(file)


class _Printable(logging.Formatter):
    """What is logged for the person at the terminal, without control characters of names."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


def entry_point(app: typer.Typer) -> Callable[..., None]:
    """The function that runs the command line `app`."""

    def main(arguments: Sequence[str] | None = None) -> None:
        """Run the command on `arguments` (default: those of the process) and exit with its code.

        0: done; 2: wrong use or input; 1: a failure; 130: interrupted.
        """
        if isinstance(sys.stdout, io.TextIOWrapper):
            # A file name that is not valid text is shown with its invalid bytes escaped.
            sys.stdout.reconfigure(errors="backslashreplace")
        if logging.lastResort is not None:
            logging.lastResort.setFormatter(_Printable())
        words = list(arguments) if arguments is not None else None
        guarded(lambda: app(words, prog_name="segweave"))()

    return main


def report(error: BaseException) -> int:
    """Print the message of `error` to stderr; returns the exit code."""
    if isinstance(error, SegweaveError):
        interrupted = error.exit_code == INTERRUPTED
        _print(f"{'interrupted' if interrupted else 'error'}: {error}")
        return error.exit_code
    if isinstance(error, KeyboardInterrupt):
        _print("interrupted: no half-written file is left; the same command again continues")
        return INTERRUPTED
    if isinstance(error, BrokenPipeError):
        # The reader of our output has gone; Python's flush at exit must not fail either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return _BROKEN_PIPE
    if isinstance(error, MemoryError) or _is_torch_memory(error):
        _print(
            "error: not enough memory\n"
            "  what to do: a smaller batch (--set training.batch_size=...), a smaller image size, "
            "or --device cpu"
        )
        return 1
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        _print(
            f"error: no space left for writing{_of(error)}\n"
            "  what to do: free some space or choose another folder; earlier results are untouched"
        )
        return 1
    if isinstance(error, OSError):
        _print(f"error: {error.strerror or error}{_of(error)}\n{_HINT}")
        return 1
    known = plugin_error(error)
    if known is not None:
        _print(f"error: {known}")
        return known.exit_code
    _print(f"error: unexpected {type(error).__name__}: {_first_line(error)}\n{_HINT}")
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


def _is_torch_memory(error: BaseException) -> bool:
    # On a GPU torch has a class for it, on the CPU only a sentence.
    on_cpu = "DefaultCPUAllocator" in str(error) or "alloc_cpu.cpp" in str(error)
    return type(error).__name__ == "OutOfMemoryError" or (
        isinstance(error, RuntimeError) and on_cpu
    )


def _print(message: str) -> None:
    with contextlib.suppress(OSError, ValueError):
        print(printable(message), file=sys.stderr, flush=True)  # noqa: T201
