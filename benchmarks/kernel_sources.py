"""What the machine code of a kernel is made of: fingerprints by which a record is still true, or no longer.

By kernel of the table, `sources` has one of all files that it and what launches it stand in: quick, and never
too narrow. Where that has changed, `code_of` tells what was compiled: the functions of the kernel itself, its
arguments' types and constants, and how it is launched.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
from collections.abc import Iterable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from matmamba_vision.ops.triton import candidates
from matmamba_vision.ops.triton.ahead import Compilation

# Of a launch's options those that launchers choose; all others are as the version of Triton has them.
OPTIONS = ("num_warps", "num_stages", "maxnreg")


def code_of(jobs: Iterable[Compilation]) -> str:
    """The same where the same is compiled, whichever version of Triton does it."""
    found = hashlib.sha256()
    for said in sorted(_said(job) for job in jobs):
        found.update(said.encode())
    return found.hexdigest()[:16]


def _said(job: Compilation) -> str:
    functions = dict[str, str]()
    _collect(getattr(import_module(job.module), job.kernel), functions)
    options = {name: job.options.get(name) for name in OPTIONS}
    given = (job.signature, job.constants, job.attributes, options)
    return repr([sorted(functions.items()), *(sorted(map(repr, known.items())) for known in given)])


def _collect(function: Any, functions: dict[str, str]) -> None:
    """The sources of a kernel, of the kernels that it calls, and the constants that they name."""
    key = f"{function.fn.__module__}.{function.fn.__name__}"
    if key in functions:
        return
    tree = ast.parse(inspect.getsource(function.fn))
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            node.decorator_list = []
    functions[key] = _without_documentation(tree)
    known = function.fn.__globals__
    for name in sorted({node.id for node in ast.walk(tree) if isinstance(node, ast.Name)} & known.keys()):
        if hasattr(known[name], "fn"):
            _collect(known[name], functions)
        elif hasattr(known[name], "value"):
            functions[f"{key} {name}"] = repr(known[name].value)


def sources() -> dict[str, str]:
    """By kernel, the same as long as it and what launches it do, comments apart."""
    known = {file: dumped for file, text in _files().items() if (dumped := _of_trials(text))}
    found = dict[str, str]()
    for kernel in candidates.TABLE:
        own = hashlib.sha256()
        for file in sorted(
            _with_imports({file for file, dumped in known.items() if f"'{kernel}'" in dumped})
        ):
            own.update(f"{file} {known[file]}".encode())
        found[kernel] = own.hexdigest()[:16]
    return found


FOLDER = Path(candidates.__file__).parent
# What is in a file of kernels, or of what launches them; and in one that says how.
CODE, CONFIGS = ("@triton.jit", "@on_device_of"), ("class TrainingConfig", "class BlockConfig")
# Of the latter trials read defaults and this; blocks in inference are launched by the table.
CHOSEN = "default_training_config"


def _files() -> dict[Path, str]:
    texts = {file.relative_to(FOLDER): file.read_text() for file in FOLDER.rglob("*.py")}
    return {file: text for file, text in texts.items() if any(sign in text for sign in CODE + CONFIGS)}


def _with_imports(files: set[Path]) -> set[Path]:
    """These files of kernels, and those that they import."""
    known, found, left = _files(), set[Path](), sorted(files)
    while left:
        file = left.pop()
        if file in known and file not in found:
            found.add(file)
            left += _imported(file, known[file])
    return found


def _imported(file: Path, text: str) -> Iterator[Path]:
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and 0 < node.level <= len(file.parents):
            place = file.parents[node.level - 1].joinpath(*(node.module or "").split("."))
            yield from [Path(f"{place}.py"), *(place / f"{alias.name}.py" for alias in node.names)]


def _without_documentation(tree: ast.Module) -> str:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node):
            node.body = node.body[1:]
    return ast.dump(tree)


def _of_trials(text: str) -> str:
    """What of a file changes what is compiled."""
    tree = ast.parse(text)
    if not any(sign in text for sign in CODE):
        tree.body = [node for node in tree.body if _is_of_trials(node)]
    return _without_documentation(tree)


def _is_of_trials(node: ast.stmt) -> bool:
    return isinstance(node, ast.ClassDef) or (isinstance(node, ast.FunctionDef) and node.name == CHOSEN)
