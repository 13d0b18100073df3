"""Who may import whom, and that the light parts stay light."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = {
    "matmamba_vision": ROOT / "matmamba_vision",
    "matmamba_datasets": ROOT / "datasets" / "matmamba_datasets",
    "matmamba_retrieval": ROOT / "retrieval" / "matmamba_retrieval",
}
# Rooms from the ground up; each may import those before it.
ORDERS = {
    "matmamba_vision": [
        "errors",
        "allocator",
        "width",
        "nearest",
        "batch",
        "device",
        "ops",
        "layers",
        "models",
        "checkpoint",
        "encoder",
        "rotation",
        "training",
        "measures",
        "progress",
        "galleries",
        "upkeep",
        "widths",
        "runs",
        "studies",
        "api",
        "cli",
    ],
    "matmamba_retrieval": (
        [
            "errors",
            "metrics",
            "overlap",
            "storage",
            "index",
            "gallery",
            "search",
            "embedder",
            "planning",
            "exchange",
            "curation",
        ]
    ),
}
# Rooms that bring images, model and retrieval together: one for each job, and what they share.
APPLICATION = {"progress", "galleries", "upkeep", "widths", "runs", "studies", "api", "cli"}
SAME_FLOOR = {"official": "checkpoint", "export": "checkpoint", "hub": "checkpoint", "__main__": "cli"}


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


def test_datasets_import_nothing_of_ours() -> None:
    for module, file in modules("matmamba_datasets"):
        assert not {
            name
            for name in imports(module, file)
            if name.startswith(("matmamba_vision", "matmamba_retrieval"))
        }


def test_retrieval_imports_the_model_and_torch_in_its_embedder_only() -> None:
    for module, file in modules("matmamba_retrieval"):
        heavy = {name.split(".")[0] for name in imports(module, file)} & {
            "matmamba_vision",
            "matmamba_datasets",
            "torch",
        }
        assert not heavy or module == "matmamba_retrieval.embedder", module


def test_only_the_application_brings_the_packages_together() -> None:
    for module, file in modules("matmamba_vision"):
        ours = {
            name
            for name in imports(module, file)
            if name.startswith(("matmamba_datasets", "matmamba_retrieval"))
        }
        if module == "matmamba_vision":
            assert ours == {"matmamba_datasets.torchvision_compat"}
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


def test_functions_and_files_stay_short() -> None:
    for package in PACKAGES:
        for module, file in modules(package):
            source = file.read_text()
            assert source.count("\n") <= (450 if ".ops" in module else 300), module
            for node in ast.walk(ast.parse(source)):
                if isinstance(node, ast.FunctionDef) and ".ops" not in module and node.name != "__init__":
                    length = (node.end_lineno or 0) - node.lineno + 1
                    assert length <= 40, f"{module}.{node.name} has {length} lines"
