"""Training over several machines: each image is read once, and the run is that of one machine to the bit."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterable
from itertools import chain
from pathlib import Path

import pytest
from finished_runs import assert_same_run
from matmamba_datasets import DataConfig, open_splits
from matmamba_datasets.order import shuffled
from matmamba_vision.runs.train_config import save_config
from node_runs import EPOCHS, LAYOUTS, READERS, STEP, short
from two_machines import torchrun

PROGRAM = Path(__file__).parents[1] / "node_runs.py"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run of each reader over each layout, and one that trained in two processes."""
    folder = tmp_path_factory.mktemp("nodes")
    done = subprocess.run(
        [sys.executable, str(PROGRAM), str(folder)],
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.stdout.endswith("done\n"), done.stdout[-3000:] + done.stderr[-3000:]
    return folder


def batches_read(
    folder: Path, reader: str, layout: tuple[int, int], what: str
) -> list[list[list[list[str]]]]:
    """By epoch, for each process in turn: the ids of each batch."""
    machines, each = layout
    files = [folder / f"{reader}-{machines}x{each}-{rank}.json" for rank in range(machines * each)]
    return [
        list(epoch) for epoch in zip(*(json.loads(file.read_text())[what] for file in files), strict=True)
    ]


def joined(by_process: Iterable[Iterable[list[str]]]) -> list[str]:
    """The ids of all batches of all processes."""
    return [one for batches in by_process for ids in batches for one in ids]


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: "{}x{}".format(*layout))
@pytest.mark.parametrize("reader", READERS)
def test_each_image_is_read_by_one_process(runs: Path, reader: str, layout: tuple[int, int]) -> None:
    """Counted: in an epoch each once, in the steps of one process, but for a last step that is not full."""
    splits = open_splits(DataConfig(name=reader, root=str(runs / reader)))
    images = splits.train
    assert len(images) % STEP
    read = batches_read(runs, reader, layout, "training")
    assert len(read) == EPOCHS
    for epoch, by_process in enumerate(read):
        order = [images.ids[place] for place in shuffled(images.groups, 0, epoch)]
        steps = [sorted(chain(*parts)) for parts in zip(*by_process, strict=True)]
        starts = range(0, len(order) // STEP * STEP, STEP)
        assert steps == [sorted(order[start : start + STEP]) for start in starts]
        seen = joined(by_process)
        assert len(seen) == len(set(seen)) == len(images) // STEP * STEP
    # Measured: the last step of a pass in order is shared as well.
    assert len(splits.held_out) % STEP
    (measured,) = batches_read(runs, reader, layout, "measuring")
    assert sorted(joined(measured)) == sorted(splits.held_out.ids)


def test_an_epoch_leaves_out_other_images_than_the_last(runs: Path) -> None:
    images = open_splits(DataConfig(name="folder", root=str(runs / "folder"))).train
    read = batches_read(runs, "folder", (2, 2), "training")
    left = [set(images.ids) - set(joined(by_process)) for by_process in read]
    assert all(left)
    assert left[0] != left[1]


def test_torchrun_over_two_addresses_is_one_run(runs: Path, tmp_path: Path) -> None:
    """What two launchers that meet train is what two processes of one do: losses, weights, optimiser."""
    config = tmp_path / "config.yaml"
    save_config(short(tmp_path / "run"), config)
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        meeting = f"127.0.0.1:{found.getsockname()[1]}"
    both = [
        subprocess.Popen(
            torchrun(config, address, meeting), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        for address in ("127.0.0.1", "127.0.0.2")
    ]
    said = [process.communicate(timeout=900)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    # One process speaks.
    assert sum("checkpoint: " in text for text in said) == 1
    assert_same_run(runs / "trained", tmp_path / "run")
