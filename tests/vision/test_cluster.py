"""Two machines, in network namespaces: one is lost and comes back, is cut off, is told to stop."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
import two_machines
from documents import ROOT, blocks
from finished_runs import assert_same_run
from forked_ranks import run_ranks
from killed_runs import STEPS, config
from matmamba_vision.runs import train
from matmamba_vision.runs.train_config import save_config
from matmamba_vision.training import Saves
from two_machines import PORT, Machine, torchrun

WHY_NOT = two_machines.missing()
pytestmark = [pytest.mark.cluster, pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT)]
EPOCHS, SECONDS = 3, 900
GONE = "another process of this run is gone"
# A launcher that is silent for three times torchrun's keep_alive_interval, 15 seconds, takes part no more.
FORGOTTEN = 20


@pytest.fixture
def machines() -> Iterator[tuple[Machine, Machine]]:
    with two_machines.two_machines() as both:
        yield both


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of two processes of one machine."""
    made = config(tmp_path_factory.mktemp("undisturbed") / "run", 2)
    made.optim.epochs = EPOCHS
    run_ranks(partial(train, made), (1, 2))
    return Path(made.output)


class Both:
    """A run over both machines.

    Args:
        folder: of everything.
        machines: both.
        restarts: how often the launchers may begin anew.
        lost_seconds: after which a silent process counts as lost.
    """

    def __init__(
        self, folder: Path, machines: tuple[Machine, Machine], restarts: int = 0, lost_seconds: int = 600
    ) -> None:
        self.folder, self.machines, self.restarts = folder, machines, restarts
        made = config(folder / "run", 2)
        made.optim.epochs, made.engine.lost_seconds = EPOCHS, lost_seconds
        self.output, self.config = Path(made.output), folder / "config.yaml"
        save_config(made, self.config)
        self.running: list[subprocess.Popen[str]] = []

    def start(self, machine: Machine) -> subprocess.Popen[str]:
        """Start the launcher of a machine."""
        meeting = f"{self.machines[0].name}:{PORT}"
        command = torchrun(self.config, machine.address, meeting, restarts=self.restarts)
        return machine.start(command, self.said(machine))

    def said(self, machine: Machine) -> Path:
        """The file with what is printed on a machine."""
        return self.folder / f"said-{machine.number}.txt"

    def text(self) -> str:
        """All that was printed."""
        return "\n".join(self.said(machine).read_text() for machine in self.machines)

    def until_saved(self, step: int) -> None:
        """Wait for a checkpoint of a step, or a later one."""
        saves = Saves(self.output / "checkpoints")
        wait_for(lambda: any(int(path.name[5:]) >= step for path in saves.all()), self.text)


def wait_for(there: Callable[[], bool], said: Callable[[], str]) -> None:
    until = time.monotonic() + SECONDS
    while not there():
        assert time.monotonic() < until, said()
        time.sleep(0.02)


def statuses(processes: list[subprocess.Popen[str]]) -> list[int]:
    return [process.wait(SECONDS) for process in processes]


def test_two_machines_train_what_one_does(
    tmp_path: Path, machines: tuple[Machine, Machine], undisturbed: Path
) -> None:
    both = Both(tmp_path, machines)
    assert statuses([both.start(machine) for machine in machines]) == [0, 0], both.text()
    assert_same_run(undisturbed, both.output)


def test_a_machine_that_is_lost_comes_back(
    tmp_path: Path, machines: tuple[Machine, Machine], undisturbed: Path
) -> None:
    """The other one's launcher waits for it, and both go on from the newest checkpoint."""
    both = Both(tmp_path, machines, restarts=3)
    first = both.start(machines[0])
    both.start(machines[1])
    both.until_saved(STEPS + 1)
    machines[1].lose_power()
    wait_for(lambda: GONE in both.text(), both.text)
    time.sleep(FORGOTTEN)
    assert statuses([both.start(machines[1]), first]) == [0, 0], both.text()
    assert re.search(r"going on from .*step-0000", both.text())
    assert_same_run(undisturbed, both.output)


def test_the_machine_where_they_meet_is_lost(
    tmp_path: Path, machines: tuple[Machine, Machine], undisturbed: Path
) -> None:
    """Then nobody knows who takes part: both launchers are started again, as a scheduler does."""
    both = Both(tmp_path, machines)
    both.start(machines[0])
    second = both.start(machines[1])
    both.until_saved(STEPS + 1)
    machines[0].lose_power()
    assert second.wait(SECONDS) != 0
    assert statuses([both.start(machine) for machine in machines]) == [0, 0], both.text()
    assert_same_run(undisturbed, both.output)


def test_a_machine_that_is_cut_off_is_noticed(tmp_path: Path, machines: tuple[Machine, Machine]) -> None:
    """It says nothing, and nobody says that it is gone; its own launcher goes on asking where they meet."""
    both = Both(tmp_path, machines, lost_seconds=8)
    running = [both.start(machine) for machine in machines]
    both.until_saved(STEPS + 1)
    machines[1].cable(plugged=False)
    assert running[0].wait(SECONDS) != 0
    wait_for(lambda: all(GONE in both.said(machine).read_text() for machine in machines), both.text)


def test_a_signal_on_one_machine_stops_both(
    tmp_path: Path, machines: tuple[Machine, Machine], undisturbed: Path
) -> None:
    """Both finish the same step and save it."""
    both = Both(tmp_path, machines)
    running = [both.start(machine) for machine in machines]
    both.until_saved(2)
    running[1].send_signal(signal.SIGTERM)
    assert all(status != 0 for status in statuses(running))
    assert "go on with resume auto" in both.text(), both.text()
    assert both.text().count("matmamba: interrupted; what was saved stays") == 2, both.text()
    assert statuses([both.start(machine) for machine in machines]) == [0, 0], both.text()
    assert_same_run(undisturbed, both.output)


def test_a_folder_that_is_not_shared_is_named(tmp_path: Path, machines: tuple[Machine, Machine]) -> None:
    both = Both(tmp_path, machines)
    (tmp_path / "run").mkdir()
    meeting = f"{machines[0].name}:{PORT}"
    mount = f'mount -t tmpfs none {both.output} && exec "$@"'
    command = torchrun(both.config, machines[1].address, meeting)
    running = [
        both.start(machines[0]),
        machines[1].start(["sh", "-c", mount, "sh", *command], both.said(machines[1])),
    ]
    assert all(status != 0 for status in statuses(running))
    assert re.search(
        r"error: .*run: process 1 on second has another folder of that name than process \d+ on first:",
        both.text(),
    )
    assert not (both.output / "checkpoints").exists()


SRUN = """#!{python}
import os, signal, subprocess, sys
words = sys.argv[1:]
while words[0].startswith("-"):
    words = words[1:]
running = [subprocess.Popen([*on, *words]) for on in {on!r}]
signal.signal(signal.SIGTERM, lambda *_: [process.send_signal(signal.SIGTERM) for process in running])
sys.exit(max(abs(process.wait()) for process in running))
"""
SCONTROL = """#!/bin/sh
case "$1" in
show) echo first; echo second ;;
requeue) echo "requeued $2" ;;
esac
"""


def test_the_script_for_slurm_stops_saves_and_goes_on(
    tmp_path: Path, machines: tuple[Machine, Machine], undisturbed: Path
) -> None:
    """As it stands on its page, with a srun that starts a task on each machine, and a scontrol that notes."""
    both = Both(tmp_path, machines)
    jobs = [text for text in blocks(ROOT / "docs" / "clusters.md", "bash") if "#SBATCH" in text]
    (script,) = [text for text in jobs if "torchrun" in text]
    tools = tmp_path / "tools"
    tools.mkdir()
    python = f'#!/bin/sh\nexec {sys.executable} -m torch.distributed.run "$@"\n'
    known = {
        "srun": SRUN.format(python=sys.executable, on=[machine.on for machine in machines]),
        "scontrol": SCONTROL,
        "torchrun": python,
    }
    for name, text in known.items():
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)
    environment = {**os.environ, "PATH": f"{tools}:{os.environ['PATH']}"}
    environment |= {"SLURM_JOB_ID": "7", "SLURM_NNODES": "2", "SLURM_JOB_NODELIST": "both"}
    environment |= {"CONFIG": str(both.config), "OUTPUT": str(both.output), "PROCESSES": "1"}

    def job(count: int) -> subprocess.Popen[str]:
        said = (tmp_path / f"job-{count}.txt").open("w")
        return subprocess.Popen(
            ["bash", "-c", script], stdout=said, stderr=subprocess.STDOUT, text=True,
            env={**environment, "SLURM_RESTART_COUNT": str(count)},
        )  # fmt: skip

    first = job(0)
    both.until_saved(2)
    first.send_signal(signal.SIGUSR1)
    assert first.wait(SECONDS) == 0
    said = (tmp_path / "job-0.txt").read_text()
    assert "requeued 7" in said, said
    assert "go on with resume auto" in said
    assert job(1).wait(SECONDS) == 0, (tmp_path / "job-1.txt").read_text()
    assert "requeued" not in (tmp_path / "job-1.txt").read_text()
    assert_same_run(undisturbed, both.output)
