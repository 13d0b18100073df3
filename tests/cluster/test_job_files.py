"""The jobs for Slurm and Kubernetes that the page shows do what it says."""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path

import documents
import matmamba_vision as mv
import pytest
import yaml
from matmamba_vision.cli.main import main
from same_galleries import content

PAGE = documents.ROOT / "docs" / "clusters.md"
# Of the page; and here, which takes less time.
SHARDS, FEW = 32, 3
# Stands for the command: prints the words that it is given.
PRINTS = "#!/bin/bash\nprintf '%q ' \"$@\"\n"


def words_of(script: str, place: Path, variables: dict[str, str]) -> list[str]:
    """What a script gives to `matmamba`, as a shell reads it, with the test's folders."""
    (place / "bin").mkdir(exist_ok=True)
    (place / "bin" / "matmamba").write_text(PRINTS)
    (place / "bin" / "matmamba").chmod(0o755)
    known = os.environ | {"PATH": f"{place / 'bin'}:{os.environ['PATH']}"} | variables
    said = subprocess.run(
        ["bash", "-c", script.replace("/data/", f"{place}/").replace(str(SHARDS), str(FEW))],
        env=known, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return shlex.split(said.stdout)


def slurm(place: Path, number: int | None) -> list[str]:
    index, merge, *_ = documents.blocks(PAGE, "bash")
    assert f"--array=1-{SHARDS}" in index
    variables = {"SLURM_ARRAY_TASK_ID": str(number), "SLURM_CPUS_PER_TASK": "1"}
    return words_of(merge if number is None else index, place, variables)


def kubernetes(place: Path, number: int | None) -> list[str]:
    index, merge = yaml.safe_load_all(documents.blocks(PAGE, "yaml")[0])
    assert index["spec"]["completions"] == SHARDS
    (container,) = (merge if number is None else index)["spec"]["template"]["spec"]["containers"]
    assert container["command"] == ["/bin/sh", "-c"]
    (script,) = container["args"]
    return words_of(script, place, {"JOB_COMPLETION_INDEX": str(number - 1 if number else 0)})


@pytest.mark.parametrize("words", [slurm, kubernetes])
def test_jobs_of_the_page_make_the_gallery_of_one_run(words: object, place: Path) -> None:
    assert callable(words)
    options = ["--checkpoint", str(place / "model"), "--batch-size", "3", "--threads", "1"]
    for number in range(1, FEW + 1):
        # A part may have the broken file alone.
        assert main([*words(place, number), *options, "--max-broken", "1"]) == 0
    merge = words(place, None)
    assert len(merge) == 1 + FEW + len(["--into", "G", "--dims", "64", "--factory", "ivfpq"])
    # So few images train no cells.
    assert main(merge[: merge.index("--dims")]) == 0
    mv.index(place / "photos", place / "one", model=place / "model", batch_size=3, max_broken=1, threads=1)
    assert content(place / "gallery") == content(place / "one")
