"""Runs timm's own model tests, unmodified, on our models.

    python tests/timm_contract.py [--width 1/4] [--record] [pytest arguments]

The file `tests/test_models.py` comes with timm's source distribution of the installed version, which pip
fetches. This module is the plugin that makes timm list our models alone, treated as timm treats its vision
transformers ("non-standard" lists); with --width, it makes the submodels of that width. TorchScript is left
out: PyTorch has given it up, and it cannot follow widths; torch.export takes its place.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
from collections.abc import Callable, Generator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import matmamba_vision  # noqa: F401  first, because timm imports torchvision
import pytest
import timm
from matmamba_vision.measures.environment import environment
from matmamba_vision.models import default_cfgs

OUTCOME = pytest.StashKey[str]()
OURS = tuple(sorted(default_cfgs))
# timm's tests look for vision transformers by this pattern among others.
LIKE_VIT = "vit_*"
RECORD = Path(__file__).parents[1] / "benchmarks" / "results" / "timm_contract.json"


def pytest_addoption(parser: pytest.Parser) -> None:
    """A width for all models."""
    parser.addoption("--width", help="test the extracted submodels, such as 1/4")
    parser.addoption("--record", action="store_true", help=f"keep the outcomes in {RECORD.name}")


def pytest_configure(config: pytest.Config) -> None:
    """Before timm's tests are collected: they list models when they are imported."""
    if width := config.getoption("--width"):
        timm.create_model = partial(timm.create_model, width=width)
    timm.list_models = _listing(timm.list_models)
    timm.list_pretrained = lambda *_, **__: []


def _listing(original: Callable[..., list[str]]) -> Callable[..., list[str]]:
    def list_models(
        filter: str | Sequence[str] = "",
        module: str | Sequence[str] = "",
        pretrained: bool = False,
        exclude_filters: str | Sequence[str] = "",
        **rest: Any,
    ) -> list[str]:
        """Our models wherever vision transformers are wanted, and no others."""
        left_out = LIKE_VIT in exclude_filters or pretrained
        wanted = (not filter or LIKE_VIT in filter) and (not module or "vision_transformer" in module)
        return [*OURS] if wanted and not left_out else []

    return list_models


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what tests other models, and TorchScript."""
    kept = [item for item in items if _is_ours(item)]
    config.hook.pytest_deselected(items=[item for item in items if not _is_ours(item)])
    items[:] = kept


def _is_ours(item: pytest.Item) -> bool:
    callspec = getattr(item, "callspec", None)
    return (
        callspec is not None and callspec.params.get("model_name") in OURS and "torchscript" not in item.name
    )


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, None]:
    """Keep the outcome with the test, for the record."""
    report = (yield).get_result()
    if report.when == "call":
        item.stash[OUTCOME] = report.outcome


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Add the outcomes to the record: by width, variant and test, each with the commit that was tested."""
    if not session.config.getoption("--record"):
        return
    record = json.loads(RECORD.read_text()) if RECORD.is_file() else {}
    width, commit = session.config.getoption("--width") or "full", environment()["commit"]
    for item in session.items:
        if isinstance(item, pytest.Function) and OUTCOME in item.stash:
            of_variant = record.setdefault(width, {}).setdefault(item.callspec.params["model_name"], {})
            name = item.originalname
            of_variant[name] = {"outcome": item.stash[OUTCOME], "timm": timm.__version__, "commit": commit}
    RECORD.write_text(json.dumps(record, indent=2, sort_keys=True) + "\n")


def fetch(folder: Path) -> Path:
    """timm's test file of the installed version, fetched by pip where it is not there yet."""
    file = folder / f"timm-{timm.__version__}" / "tests" / "test_models.py"
    if not file.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        wanted = f"timm=={timm.__version__}"
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", "timm"]
        subprocess.run([*pip, "--dest", str(folder), wanted], check=True)
        archive = next(folder.glob(f"timm-{timm.__version__}.tar.gz"))
        with tarfile.open(archive) as source:
            source.extract(f"timm-{timm.__version__}/tests/test_models.py", folder, filter="data")
    return file


def main() -> None:
    """Fetch and run."""
    file = fetch(Path("build/timm"))
    # No configuration of this project holds for a file that is not its own.
    options = ["-c", "/dev/null", "--rootdir", str(file.parent), "-p", "timm_contract", "-q", "-W", "ignore"]
    sys.exit(pytest.main([*options, str(file), *sys.argv[1:]]))


if __name__ == "__main__":
    main()
