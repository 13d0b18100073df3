"""Runs that are killed and continued, beside one that is not: a program for cli/test_resume.py.

    python killed_runs.py FOLDER RANKS

trains FOLDER/unbroken in one go, and FOLDER/broken with a SIGKILL at each of `POINTS`. Every run is a process
forked from this one, because importing everything takes longer than training.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import figures
import interpreter  # noqa: F401

# What a training loads when it needs it: once here, instead of in each process.
import torch
import torch._dynamo
import torch.utils.tensorboard
import torchmetrics.classification  # noqa: F401
from matmamba_datasets import AugmentConfig, DataConfig
from matmamba_vision.runs import TrainConfig, keeper, recorder, train
from matmamba_vision.training import (
    EngineConfig,
    MixConfig,
    ModelConfig,
    ObjectiveConfig,
    OptimConfig,
    SaveConfig,
    ScheduleConfig,
    saving,
)

figures.leave_blank()

IMAGES = Path(__file__).parent / "data" / "v0_1" / "images"
STEPS = 5  # in an epoch
# Module or class, its function, at which call, and whether the kill comes before or after.
POINTS = [
    (recorder.Recorder, "on_step", 3, "after"),  # within the first epoch, after a checkpoint at step 2
    (saving, "_seal", 1, "before"),  # while saving: tensors are there, the state is not
    (Path, "rename", 1, "before"),  # while saving: all is written, nothing has its name
    (keeper.RunKeeper, "keep", 1, "before"),  # between epochs: saved and measured, nothing noted
    (recorder.Recorder, "on_epoch", 1, "after"),  # between epochs
    (saving.Saves, "_forget_old", 1, "before"),  # while saving: there is one too many
]


def config(output: Path, ranks: int) -> TrainConfig:
    """Some images with everything that draws random numbers; few, because reading them is most of a run."""
    return TrainConfig(
        output=str(output),
        threads=1,
        device="cpu",
        eval_every=1,
        log_every=2,
        model=ModelConfig(
            img_size=8, drop_path_rate=0.2, proj_drop_rate=0.1, trained_widths=["full", "1/2", "1/4", "1/8"]
        ),
        data=DataConfig(
            name="folder", root=str(IMAGES), batch_size=6 // ranks, augment=AugmentConfig(re_prob=0.3)
        ),
        objective=ObjectiveConfig(mrl_dims=[8, 32]),
        schedule=ScheduleConfig(kind="sandwich", between=1),
        mix=MixConfig(mixup=0.8, cutmix=1.0),
        optim=OptimConfig(epochs=3, warmup_epochs=1, lr=3e-3, ema=0.9),
        engine=EngineConfig(),
        save=SaveConfig(every_steps=2, keep=2),
    )


def kill_at(owner: object, name: str, call: int, when: str) -> None:
    """End this process, without any clean-up, at a call of a function."""
    function: Callable[..., object] = getattr(owner, name)
    left = [call]

    def killing(*args: object, **known: object) -> object:
        left[0] -= 1
        if not left[0] and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        found = function(*args, **known)
        if not left[0]:
            os.kill(os.getpid(), signal.SIGKILL)
        return found

    setattr(owner, name, killing)


def run(output: Path, ranks: int, point: tuple[object, str, int, str] | None, killed: int = 0) -> list[int]:
    """Train in `ranks` processes; the one numbered `killed` dies at `point`. Their statuses, or -signal."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    children = [_fork(output, rank, ranks, port, point if rank == killed else None) for rank in range(ranks)]
    statuses: dict[int, int] = {}
    while len(statuses) < ranks:
        child, status = os.wait()
        statuses[child] = os.waitstatus_to_exitcode(status)
        # As a launcher does: when one is gone, the others are ended, unless the test wants to hear them.
        for other in children:
            if statuses[child] and other not in statuses and point and killed == 0:
                os.kill(other, signal.SIGKILL)
    return [statuses[child] for child in children]


def _fork(output: Path, rank: int, ranks: int, port: int, point: tuple[object, str, int, str] | None) -> int:
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        if ranks > 1:
            known: dict[str, int | str] = {
                "RANK": rank,
                "LOCAL_RANK": rank,
                "WORLD_SIZE": ranks,
                "LOCAL_WORLD_SIZE": ranks,
            }
            known |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
            os.environ.update({name: str(value) for name, value in known.items()})
        if point:
            kill_at(*point)
        train(config(output, ranks), resume="auto")
        status = 0
    except ConnectionError as error:
        print(f"lost: {error}", flush=True)
        status = 3
    except Exception:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(status)


def main() -> None:
    """Both runs, and one whose second process dies."""
    folder, ranks = Path(sys.argv[1]), int(sys.argv[2])
    torch.set_num_threads(1)
    assert run(folder / "unbroken", ranks, None) == [0] * ranks
    for point in POINTS:
        statuses = run(folder / "broken", ranks, point)
        assert statuses[0] == -signal.SIGKILL, (point, statuses)
    if ranks > 1:
        statuses = run(folder / "broken", ranks, (recorder.Recorder, "on_step", 1, "after"), killed=1)
        assert statuses == [3, -signal.SIGKILL], statuses
    assert run(folder / "broken", ranks, None) == [0] * ranks
    print("done", flush=True)


if __name__ == "__main__":
    main()
