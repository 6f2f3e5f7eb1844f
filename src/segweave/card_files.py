"""The Python files that hold cards: which of a package do, their cards, read from the syntax tree
without running the file, and the one place where a user's file is run.
"""

from __future__ import annotations

import ast
import importlib.util
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from segweave.errors import InputError, nearest

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

C = TypeVar("C", bound="DataclassInstance")

loading: set[str] = set()
"""Plug-in files that are being imported, or that failed."""


def read_cards(path: Path, card_type: type[C]) -> Iterator[C]:
    """The cards of type `card_type` that a Python file declares at its top level, read without
    running it.
    """
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
    except (OSError, SyntaxError, UnicodeDecodeError) as error:
        raise InputError(f"reading the cards of a file: {error}", file=path) from error
    constants: dict[str, Any] = {}
    for statement in tree.body:
        name, value = _assigned(statement)
        if name == "CARD":
            calls = [value]
        elif name == "CARDS" and isinstance(value, ast.Tuple | ast.List):
            calls = list(value.elts)
        else:
            constants.pop(name, None)
            with suppress(ValueError):
                constant = _value(value, constants)
                if isinstance(constant, str | dict | tuple | list):
                    constants[name] = constant
            continue
        for call in calls:
            if (
                isinstance(call, ast.Call)
                and isinstance(call.func, ast.Name)
                and call.func.id == card_type.__name__
            ):
                yield _card_from_call(call, card_type, path, constants)


def parameters_of(path: Path, entry: str) -> list[str] | None:
    """The names of the arguments of a function of a file, or of the constructor of a class, read
    without running it. None where they are not all written there (inherited from another file, or
    **options).
    """
    tree = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
    named = {getattr(one, "name", ""): one for one in tree.body}
    found = named.get(entry)
    while isinstance(found, ast.ClassDef):
        own = {getattr(one, "name", ""): one for one in found.body}
        parent = found.bases[0] if len(found.bases) == 1 else None
        inherited = named.get(parent.id) if isinstance(parent, ast.Name) else None
        found = own.get("__init__", inherited)
    if not isinstance(found, ast.FunctionDef) or found.args.kwarg is not None:
        return None
    arguments = [*found.args.posonlyargs, *found.args.args, *found.args.kwonlyargs]
    return [one.arg for one in arguments if one.arg != "self"]


def file_of(module: str) -> Path | None:
    """The file of a module, without importing it or the package that holds it; None where only
    that would tell.
    """
    if module in sys.modules:
        file = sys.modules[module].__file__
        return None if file is None else Path(file)
    root, *parts = module.split(".")
    path = Path(__file__).parent.joinpath(*parts).with_suffix(".py")
    return path if root == "segweave" and path.is_file() else None


def _assigned(statement: ast.stmt) -> tuple[str, ast.expr]:
    """The name and the value of `NAME = value` or `NAME: type = value`, else an empty name."""
    if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
        return statement.targets[0].id, statement.value
    if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
        return statement.target.id, statement.value or ast.Constant(None)
    return "", ast.Constant(None)


def _value(node: ast.expr, constants: Mapping[str, Any]) -> Any:
    """The value of a literal that may hold constants of the file, texts also joined with + or in an
    f-string; raises ValueError for anything else.
    """
    if isinstance(node, ast.Name):
        if node.id in constants:
            return constants[node.id]
        raise ValueError(f"{node.id} is not a constant of the file")
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        left, right = _value(node.left, constants), _value(node.right, constants)
        if isinstance(left, str) and isinstance(right, str):
            return left + right
    if isinstance(node, ast.JoinedStr):
        return "".join(str(_value(part, constants)) for part in node.values)
    if isinstance(node, ast.FormattedValue) and node.conversion == -1 and node.format_spec is None:
        return _value(node.value, constants)
    if isinstance(node, ast.Tuple):
        return tuple(_value(part, constants) for part in node.elts)
    if isinstance(node, ast.List):
        return [_value(part, constants) for part in node.elts]
    if isinstance(node, ast.Dict) and all(key is not None for key in node.keys):
        return {
            _value(key, constants): _value(value, constants)
            for key, value in zip(node.keys, node.values, strict=True)
            if key is not None
        }
    return ast.literal_eval(node)


def _card_from_call(
    call: ast.Call, card_type: type[C], path: Path, constants: Mapping[str, Any]
) -> C:
    known = {f.name for f in fields(card_type)}
    values: dict[str, Any] = {}
    for keyword in call.keywords:
        if keyword.arg is None or keyword.arg not in known:
            raise InputError(
                f"reading a {card_type.__name__}",
                file=path,
                expected=", ".join(sorted(known)),
                found=str(keyword.arg),
                remedy=nearest(str(keyword.arg), known),
            )
        try:
            values[keyword.arg] = _value(keyword.value, constants)
        except ValueError as error:
            raise InputError(
                f"reading a {card_type.__name__}",
                file=path,
                expected=f"a literal for {keyword.arg}, or constants (texts, lists, mappings) "
                "that the file defines above the card",
                found=ast.unparse(keyword.value),
            ) from error
    _check_choices(values, card_type, path)
    try:
        return card_type(**values)
    except TypeError as error:
        raise InputError(f"reading a {card_type.__name__}: {error}", file=path) from error


def _check_choices(values: Mapping[str, Any], card_type: type[Any], path: Path) -> None:
    """Raise InputError for a value that is not one of those that its field names: a field of the
    type Literal, or a tuple of such values.
    """
    for name, annotation in get_type_hints(card_type).items():
        several = get_origin(annotation) is tuple
        literal = get_args(annotation)[0] if several else annotation
        if name not in values or get_origin(literal) is not Literal:
            continue
        known = get_args(literal)
        given = values[name]
        items = given if several and isinstance(given, tuple | list) else [given]
        if several and not isinstance(given, tuple | list):
            wrong: Any = given
        else:
            wrong = next((item for item in items if item not in known), None)
        if wrong is not None:
            raise InputError(
                f"reading a {card_type.__name__}",
                file=path,
                expected=f"{name}: "
                + ("a tuple of " if several else "")
                + " or ".join(repr(one) for one in known),
                found=repr(given),
                remedy=nearest(str(wrong), map(str, known)),
            )


def load_file(path: Path, module_name: str) -> ModuleType:
    """Import one Python file under `module_name`."""
    spec = importlib.util.spec_from_file_location(module_name, path)
    if spec is None or spec.loader is None:
        raise InputError("loading a plug-in", file=path, expected="a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    loading.add(str(path))
    try:
        spec.loader.exec_module(module)
    except Exception:
        del sys.modules[module_name]
        raise
    loading.discard(str(path))
    return module


def package_files(package: str) -> list[tuple[Path, str]]:
    """The files of a package and of the packages in it that may hold cards, with their modules."""
    # Every package is a plain folder, so that its path is known without importing it.
    folder = Path(__file__).parent.joinpath(*package.split(".")[1:])
    found = []
    for path in sorted(folder.rglob("*.py")):
        parts = path.relative_to(folder).with_suffix("").parts
        if not any(part.startswith("_") for part in parts):
            found.append((path, ".".join([package, *parts])))
    return found
