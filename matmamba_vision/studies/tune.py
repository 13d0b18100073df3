"""The launch of each Triton kernel, chosen once for this machine's GPU and kept in a file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ..errors import ConfigError
from ..ops import BACKENDS, BackendError, Setting
from ..progress import Listener, Reporter
from ..public_call import public_call

if TYPE_CHECKING:
    from ..ops.triton.ahead import Compilation
    from ..ops.triton.chosen import KeptLaunch

DTYPES = ("bfloat16", "float16", "float32")


@dataclass(frozen=True, kw_only=True)
class Tuned:
    """What was measured and chosen.

    Attributes:
        gpu: the name of the GPU.
        file: where the choices are kept.
        choices: one for each kernel and class of shapes.
        changed: how many of them are not what is launched by default.
        dropped: candidates that do not compile or compute something else, and why.
    """

    gpu: str
    file: Path
    choices: Sequence[KeptLaunch]
    changed: int
    dropped: dict[str, str]

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "gpu": self.gpu,
            "file": str(self.file),
            "changed": self.changed,
            "choices": [choice.to_dict() for choice in self.choices],
            "dropped": self.dropped,
        }


@public_call
def tune(
    *,
    dtypes: Sequence[str] = ("bfloat16",),
    head_dims: Sequence[int] = (16, 32),
    progress: Listener | None = None,
) -> Tuned:
    """Measure how each Triton kernel is launched best on this GPU, and keep that for this machine.

    Candidates are compiled, compared with the definition, and timed as CUDA graphs. The file lies in the
    user's cache folder and holds for this GPU, version of Triton and version of torch; it is read when a
    kernel is first launched. Without it kernels are launched by default: nothing is ever measured then.

    Args:
        dtypes: of "bfloat16", "float16" and "float32"; more of them take longer.
        head_dims: of the models that will be used: 16 and 32 are those of the registered ones.
        progress: is told how far it is.

    Raises:
        BackendError: there is no GPU for CUDA, or Triton is missing or too old.
        ConfigError: a dtype or a head dim that no kernel takes.
    """
    report = Reporter(progress)
    _require(dtypes, head_dims)
    from ..ops.triton import chosen, known_trials, trials

    device = torch.device("cuda", torch.cuda.current_device())
    gpu = torch.cuda.get_device_name(device)
    major, minor = torch.cuda.get_device_capability(device)
    capability = 10 * major + minor
    wanted = known_trials.all_trials(dtypes, head_dims, capability)
    _compile([job for trial in wanted for job in trial.jobs(capability)], capability, report)
    choices, dropped = list[chosen.KeptLaunch](), dict[str, str]()
    with report.meter("measuring", sum(len(trial.kernels) for trial in wanted), "kernels") as meter:
        for trial in wanted:
            for kernel, found in zip(
                trial.kernels, trials.tried(trial, device, trials.graph_clock), strict=True
            ):
                choices += [found.choice] if found.choice else []
                dropped |= {f"{kernel}, {trial}: {row}": why for row, why in found.dropped.items()}
                meter.advance(1)
    return _keep(gpu, choices, dropped)


def _require(dtypes: Sequence[str], head_dims: Sequence[int]) -> None:
    for dtype in dtypes:
        if dtype not in DTYPES:
            raise ConfigError(f"dtypes has {dtype!r}: it can have {', '.join(DTYPES)}")
    if not torch.cuda.is_available():
        raise BackendError("there is no GPU for CUDA here, and so nothing to tune: kernels need one")
    for head_dim in head_dims:
        if reason := BACKENDS["triton"].refusal(Setting(device="cuda", head_dim=head_dim)):
            raise BackendError(f"there is nothing to tune: {reason}")


def _compile(jobs: Sequence[Compilation], gpu: int, report: Reporter) -> None:
    """Fill Triton's cache, by all processors; what fails is told by the candidate that needs it."""
    from ..ops.triton.ahead import compiled_at_once

    distinct = {job.key: job for job in jobs}.values()
    with report.meter("compiling", len(distinct), "kernels") as meter:
        for _ in compiled_at_once(list(distinct), gpu):
            meter.advance(1)


def _keep(gpu: str, choices: Sequence[KeptLaunch], dropped: dict[str, str]) -> Tuned:
    from ..ops.triton import candidates, chosen

    file = chosen.file_for(gpu)
    chosen.write_choices(file, gpu, choices)
    chosen.forget()
    changed = [
        choice
        for choice in choices
        if choice.candidate != candidates.rows_of(choice.kernel, choice.shapes)[0].name
    ]
    return Tuned(gpu=gpu, file=file, choices=choices, changed=len(changed), dropped=dropped)
