"""Two machines on one: network namespaces that a pair of virtual cards joins, and programs started in them.

Needs root, or the right to make namespaces, and iproute2. All of a machine's processes can be killed at once,
as by a power cut, and its cable can be pulled.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

CARD, PORT = "eth0", 29511
NAMES = Path("/etc/netns")


def missing() -> str:
    """Why there can be no namespaces here; "" where there can be."""
    if not shutil.which("ip"):
        return "no iproute2 here (the program ip)"
    name = f"mm-{os.getpid()}-try"
    done = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True, check=False)
    if done.returncode:
        return f"no network namespaces can be made here: {done.stderr.strip()}"
    subprocess.run(["ip", "netns", "del", name], check=True)
    return ""


@dataclass(eq=False)
class Machine:
    """One of the two.

    Attributes:
        number: 0 or 1.
        space: name of its namespace.
        address: of its card.
        name: of the machine, which both know.
    """

    number: int
    space: str
    address: str
    name: str
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    @property
    def on(self) -> list[str]:
        """The words before a command that is to run on it."""
        # What `exec` replaces keeps its number: signals reach the command.
        named = ["unshare", "--uts", "sh", "-c", 'hostname "$0" && exec "$@"', self.name]
        return ["ip", "netns", "exec", self.space, *named]

    def start(self, command: Sequence[str], said: Path, **environment: str) -> subprocess.Popen[str]:
        """Start a program on it.

        Args:
            command: words.
            said: file that receives what it prints.
            environment: further variables.
        """
        known = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
        with said.open("a") as file:
            process = subprocess.Popen(
                [*self.on, *command],
                stdout=file,
                stderr=subprocess.STDOUT,
                text=True,
                env=known,
                start_new_session=True,
            )
        self.started.append(process)
        return process

    def processes(self) -> list[int]:
        """All that run on it."""
        found = subprocess.run(
            ["ip", "netns", "pids", self.space], capture_output=True, text=True, check=True
        )
        return [int(number) for number in found.stdout.split()]

    def lose_power(self) -> None:
        """End all of its processes at once, without any clean-up."""
        while alive := self.processes():
            for number in alive:
                with suppress(ProcessLookupError):
                    os.kill(number, signal.SIGKILL)
            for process in self.started:
                process.wait()

    def cable(self, plugged: bool) -> None:
        """Pull the cable, or plug it in."""
        state = "up" if plugged else "down"
        subprocess.run(["ip", "-n", self.space, "link", "set", CARD, state], check=True)


@contextmanager
def two_machines() -> Iterator[tuple[Machine, Machine]]:
    """Both, joined by a cable; at the end nothing is left of them."""
    stem = f"mm-{os.getpid()}"
    made = tuple(
        Machine(number, f"{stem}-{number}", f"10.123.0.{number + 1}", name)
        for number, name in enumerate(("first", "second"))
    )
    known = "".join(f"{machine.address} {machine.name}\n" for machine in made)
    try:
        for machine in made:
            _ip("netns", "add", machine.space)
            # What `ip netns exec` lays over /etc/hosts.
            hosts = NAMES / machine.space / "hosts"
            hosts.parent.mkdir(parents=True)
            hosts.write_text(f"127.0.0.1 localhost\n{known}")
            _ip("-n", machine.space, "link", "set", "lo", "up")
        first, second = made
        _ip("link", "add", CARD, "netns", first.space, "type", "veth", "peer", CARD, "netns", second.space)
        for machine in made:
            _ip("-n", machine.space, "address", "add", f"{machine.address}/24", "dev", CARD)
            _ip("-n", machine.space, "link", "set", CARD, "up")
        yield first, second
    finally:
        for machine in made:
            with suppress(subprocess.CalledProcessError):
                machine.lose_power()
            subprocess.run(["ip", "netns", "del", machine.space], capture_output=True, check=False)
            shutil.rmtree(NAMES / machine.space, ignore_errors=True)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


def torchrun(
    config: Path, address: str, meeting: str, *, processes: int = 1, restarts: int = 0, resume: str = "auto"
) -> list[str]:
    """The command of one of two machines that train together.

    Args:
        config: of the run.
        address: of this machine.
        meeting: address and port where both meet.
        processes: on each machine.
        restarts: how often both may begin anew after a loss.
        resume: as for `train`.
    """
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2"]
    launcher += ["--nproc-per-node", str(processes), "--max-restarts", str(restarts)]
    launcher += ["--rdzv-backend", "c10d", "--rdzv-endpoint", meeting, "--rdzv-id", config.parent.name]
    launcher += ["--local-addr", address, "--rdzv-conf", "join_timeout=120"]
    return [*launcher, "-m", "matmamba_vision", "train", "--config", str(config), "--resume", resume]
