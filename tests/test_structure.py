"""Who may import whom, and that the light parts stay light."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections import Counter
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = {
    "matmamba_common": ROOT / "matmamba_common",
    "matmamba_vision": ROOT / "matmamba_vision",
    "matmamba_datasets": ROOT / "datasets" / "matmamba_datasets",
    "matmamba_retrieval": ROOT / "retrieval" / "matmamba_retrieval",
}
# Rooms from the ground up; each may import those before it.
ORDERS = {
    "matmamba_vision": [
        "errors",
        "public_call",
        "plain",
        "nearest",
        "config_file",
        "allocator",
        "width",
        "batch",
        "device",
        "processor",
        "native",
        "ops",
        "layers",
        "models",
        "registration",
        "checkpoint",
        "frozen",
        "encoders",
        "rotation",
        "training",
        "measures",
        "progress",
        "given",
        "data",
        "galleries",
        "upkeep",
        "video",
        "cluster",
        "widths",
        "runs",
        "studies",
        "serving",
        "api",
        "cli",
    ],
    "matmamba_retrieval": (
        [
            "arguments",
            "errors",
            "remedies",
            "metrics",
            "overlap",
            "storage",
            "index",
            "gallery",
            "strategies",
            "backends",
            "planning",
            "exchange",
            "curation",
        ]
    ),
}
# Rooms that bring images, model and retrieval together: one for each job, and what they share.
APPLICATION = {
    "progress",
    "data",
    "galleries",
    "upkeep",
    "video",
    "cluster",
    "widths",
    "runs",
    "studies",
    "serving",
    "api",
    "cli",
}
SAME_FLOOR = {"official": "checkpoint", "export": "frozen", "hub": "checkpoint", "__main__": "cli"}


def modules(package: str) -> list[tuple[str, Path]]:
    folder = PACKAGES[package]
    return [
        (".".join((package, *file.relative_to(folder).with_suffix("").parts)).removesuffix(".__init__"), file)
        for file in folder.rglob("*.py")
    ]


def imports(module: str, file: Path) -> set[str]:
    """Absolute names of all modules and names that a file imports, wherever in the file."""
    found = set()
    package = module if file.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            parts = package.split(".")
            base = ".".join(parts[: len(parts) - node.level + 1]) if node.level else ""
            source = ".".join(filter(None, (base, node.module)))
            found |= {f"{source}.{alias.name}" for alias in node.names}
    return found


def room(name: str) -> str:
    """Which room of its package a module or an imported name belongs to."""
    parts = name.split(".")
    found = parts[1] if len(parts) > 1 else ""
    return SAME_FLOOR.get(found, found)


@cache
def imported_files() -> dict[str, set[str]]:
    """Of each file of the three packages, as a module: those that it imports, wherever in the file.

    Inside of functions and under `TYPE_CHECKING`, too. With a file come the packages that it lies in, but for
    those in which the importing file lies itself.
    """
    files = dict(pair for package in PACKAGES for pair in modules(package))
    found: dict[str, set[str]] = {}
    for module, file in files.items():
        named = {name if name in files else name.rpartition(".")[0] for name in imports(module, file)}
        around = {package for name in named & files.keys() for package in packages_of(name)}
        found[module] = named & files.keys() | around - packages_of(module) - {module}
    return found


def packages_of(module: str) -> set[str]:
    """The packages in which a module lies."""
    parts = module.split(".")
    return {".".join(parts[:length]) for length in range(1, len(parts))}


def reachable(start: str) -> set[str]:
    """All that a file imports, that what it imports does, and so on."""
    found, ahead = set[str](), [start]
    while ahead:
        new = imported_files()[ahead.pop()] - found
        found |= new
        ahead += new
    return found


def rooms() -> list[tuple[str, str]]:
    """Each package with each of its rooms; a file at its top is one, too."""
    parts = ((*module.split("."), "") for module in imported_files())
    return sorted({(package, room) for package, room, *_ in parts})


def test_datasets_import_nothing_of_ours() -> None:
    for module, file in modules("matmamba_datasets"):
        assert not {
            name
            for name in imports(module, file)
            if name.startswith(("matmamba_vision", "matmamba_retrieval"))
        }


def test_retrieval_imports_neither_the_other_packages_nor_torch() -> None:
    heavy = {"matmamba_vision", "matmamba_datasets", "torch"}
    for module, file in modules("matmamba_retrieval"):
        assert not heavy & {name.split(".")[0] for name in imports(module, file)}, module


def test_only_the_application_brings_the_packages_together() -> None:
    for module, file in modules("matmamba_vision"):
        ours = {
            name
            for name in imports(module, file)
            if name.startswith(("matmamba_datasets", "matmamba_retrieval"))
        }
        if module == "matmamba_vision":
            assert ours == {"matmamba_datasets"}
        else:
            assert not ours or room(module) in APPLICATION, module


@pytest.mark.parametrize("package", [*ORDERS])
def test_the_rooms_of_a_package_build_on_each_other(package: str) -> None:
    order = ORDERS[package]
    for module, file in modules(package):
        here = room(module)
        if here == "":
            continue
        for name in imports(module, file):
            there = room(name) if name.startswith(f"{package}.") else here
            assert there in order, (module, name)
            assert order.index(there) <= order.index(here), f"{module} imports {name}"


@pytest.mark.parametrize("folder", ["datasets", "retrieval"])
def test_the_folders_shadow_no_package(folder: str) -> None:
    assert not (ROOT / folder / "__init__.py").exists()


@pytest.mark.parametrize(
    ("package", "absent"),
    [
        ("matmamba_vision", ["triton", "faiss", "mamba_ssm", "matplotlib", "sklearn", "onnx", "onnxruntime"]),
        ("matmamba_retrieval", ["torch", "timm", "torchvision", "pyarrow"]),
        ("matmamba_datasets", ["faiss", "sklearn", "pyarrow"]),
    ],
)
def test_importing_is_light(package: str, absent: list[str]) -> None:
    """Each package imports with these modules forbidden."""
    forbid = f"import sys; sys.modules.update(dict.fromkeys({absent}))"
    subprocess.run([sys.executable, "-c", f"{forbid}; import {package}"], check=True, timeout=120)


@pytest.mark.parametrize(("package", "name"), rooms())
def test_no_circle_between_files(package: str, name: str) -> None:
    """No file of the room imports itself by way of others."""
    path = ".".join(filter(None, (package, name)))
    own = [
        module for module in imported_files() if module == path or (name and module.startswith(f"{path}."))
    ]
    assert own
    for module in own:
        assert module not in reachable(module), f"{module} is imported by what it imports"


def test_a_circle_is_found_wherever_it_hides(tmp_path: Path) -> None:
    """Imports inside of functions and under `TYPE_CHECKING` are imports."""
    file = tmp_path / "one.py"
    lines = ["if TYPE_CHECKING:", "    from .two import Two", "def f():", "    from .. import three"]
    file.write_text("\n".join([*lines, "    import matmamba_vision.four", ""]))
    wanted = {"matmamba_vision.a.two.Two", "matmamba_vision.three", "matmamba_vision.four"}
    assert imports("matmamba_vision.a.one", file) == wanted


def test_the_command_line_is_for_people() -> None:
    """Programs use the calls: benchmarks and examples neither import the command nor fake its arguments."""
    files = [file for name in ("benchmarks", "examples") for file in (ROOT / name).rglob("*.py")]
    texts = {file.stem: file.read_text() for file in files}
    # What compares with 0.1, which had nothing else.
    assert [name for name, text in texts.items() if "matmamba_vision.cli" in text] == ["versions"]
    assert [name for name, text in texts.items() if re.search(r"sys\.argv(\[.*\])? = ", text)] == []


# Kernels may be long: a kernel is one computation.
KERNELS = "matmamba_vision.ops.triton."


def lines_of(function: ast.FunctionDef) -> int:
    """Lines of a function behind its signature and docstring, which give each argument a line of its own."""
    body = function.body[1:] if ast.get_docstring(function) else function.body
    return (function.end_lineno or 0) - body[0].lineno + 1 if body else 0


def test_functions_and_files_stay_short() -> None:
    for module, file in (pair for package in PACKAGES for pair in modules(package)):
        source = file.read_text()
        assert source.count("\n") <= 500, module
        functions = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef)]
        for function in [] if module.startswith(KERNELS) else functions:
            length = lines_of(function)
            assert length <= 40, f"{module}.{function.name} has {length} lines"


# A card's example for the shell, and git's own flag.
OTHER_DASHES = {
    "matmamba_vision.runs.run_card",
    "matmamba_vision.measures.environment",
}


def test_only_the_command_line_names_flags() -> None:
    """What goes wrong in a call is said in the words of the call; the command adds what is its own."""
    for module, file in (pair for package in PACKAGES for pair in modules(package)):
        if room(module) == "cli" or module in OTHER_DASHES:
            continue
        texts = [
            node.value for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Constant)
        ]
        named = [
            text for text in texts if isinstance(text, str) and re.search(r"(^|[\s(\"'`])--[a-z]{2}", text)
        ]
        assert not named, module


def test_common_imports_nothing_of_ours() -> None:
    for module, file in modules("matmamba_common"):
        ours = {name.partition(".")[0] for name in imports(module, file)} & (
            PACKAGES.keys() - {"matmamba_common"}
        )
        assert not ours, module


def test_one_name_for_one_thing() -> None:
    """No public class stands twice, and within a package no two files have one name."""
    classes, stems = list[str](), list[tuple[str, str]]()
    for package in PACKAGES:
        for _, file in modules(package):
            stems += [(package, file.stem)] if not file.stem.startswith("__") else []
            body = ast.parse(file.read_text()).body
            classes += [node.name for node in body if isinstance(node, ast.ClassDef) and node.name[0] != "_"]
    for names in (classes, stems):
        assert [name for name, count in Counter(names).items() if count > 1] == []


def test_no_room_is_a_heap() -> None:
    """A room has at most a quarter of the code; the command line, which parses and prints, 15 %."""
    sizes = Counter[tuple[str, str]]()
    for package in PACKAGES:
        for module, file in modules(package):
            sizes[package, [*module.split("."), ""][1]] += file.read_text().count("\n")
    whole = sum(sizes.values())
    assert [place for place, lines in sizes.items() if lines > whole / 4] == []
    assert sizes["matmamba_vision", "cli"] <= 0.15 * whole
