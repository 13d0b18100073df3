"""How kernels are launched: by the table's first row or by what was kept; nothing is measured on the way."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from matmamba_vision import cli
from matmamba_vision.errors import MatMambaError
from matmamba_vision.studies import tune as tune_job

candidates = pytest.importorskip("matmamba_vision.ops.triton.candidates", reason="triton is not installed")
chosen = pytest.importorskip("matmamba_vision.ops.triton.chosen")
ahead = pytest.importorskip("matmamba_vision.ops.triton.ahead")
trials = pytest.importorskip("matmamba_vision.ops.triton.trials")
block_trials = pytest.importorskip("matmamba_vision.ops.triton.block.block_trials")
branch_trials = pytest.importorskip("matmamba_vision.ops.triton.block.branch_trials")
known_trials = pytest.importorskip("matmamba_vision.ops.triton.known_trials")
launch = pytest.importorskip("matmamba_vision.ops.triton.launch")
ssd = pytest.importorskip("matmamba_vision.ops.triton.ssd")

GPU, CPU = "NVIDIA Imaginary 1", torch.device("cpu")
SHAPES = candidates.Shapes(dtype="bfloat16", head_dim=16, state_dim=128, tokens="up to 512")
needs_interpreter = pytest.mark.skipif(
    not launch.is_interpreted(), reason="kernels run on a GPU here, and tests of it try them there"
)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home of one's own, and a machine with a GPU as far as the table is concerned."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(chosen, "_gpu_of", lambda index: GPU)
    chosen.forget()
    yield tmp_path
    chosen.forget()


def kept(kernel: str, row: int, shapes: Any = SHAPES) -> Any:
    names = [known.name for known in candidates.rows_of(kernel, shapes)]
    return chosen.KeptLaunch(
        kernel=kernel, shapes=shapes, candidate=names[row], microseconds=dict.fromkeys(names, 1.0)
    )


def launched(kernel: str = "scores_kernel", shapes: Any = SHAPES) -> dict[str, Any]:
    return dict(chosen.launch_of(kernel, shapes, torch.device("cuda", 0)))


def test_without_a_file_the_first_row_is_used(caplog: pytest.LogCaptureFixture) -> None:
    assert launched() == candidates.rows_of("scores_kernel", SHAPES)[0].options
    assert launched() == {"num_warps": 4, "num_stages": 2}
    assert not caplog.records


def test_rows_have_names_of_their_own() -> None:
    others = [candidates.Shapes(dtype="float32", channels=channels) for channels in (64, 1024, 16_384)]
    for kernel in candidates.TABLE:
        for shapes in (SHAPES, candidates.Shapes(dtype="float32", head_dim=128, state_dim=256), *others):
            names = [row.name for row in candidates.rows_of(kernel, shapes)]
            assert len(set(names)) == len(names) > 0


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "tf32", "float32"])
def test_every_shape_has_a_launch(dtype: str) -> None:
    """Rows that spill are left out, and never all of them."""
    sizes = [(head_dim, state) for head_dim in (16, 32, 64, 128) for state in (16, 64, 128, 256)]
    for head_dim, state in sizes:
        for tokens in ("up to 512", "up to 1088", "longer"):
            for gpu in (0, candidates.HOPPER, candidates.OTHERS):
                shapes = candidates.Shapes(
                    dtype=dtype, head_dim=head_dim, state_dim=state, tokens=tokens, gpu=gpu
                )
                assert all(candidates.rows_of(kernel, shapes) for kernel in candidates.TABLE)


def test_what_a_row_may_take_follows_from_how_many_run_at_once() -> None:
    row = candidates.Launch(warps=4, programs=4)
    assert row.most_registers == 128
    assert row.most_shared(90) == 56 * 1024
    assert candidates.Launch(warps=4, programs=1).most_registers == 255
    assert candidates.Launch(warps=8, programs=1).most_shared(80) == 163 * 1024


def test_what_was_kept_is_launched_for_its_shapes_alone(home: Path) -> None:
    file = chosen.file_for(GPU)
    chosen.write_choices(file, GPU, [kept("scores_kernel", 3), kept("carry_kernel", 1)])
    assert file.is_relative_to(home)
    assert [path.name for path in file.parent.iterdir()] == [file.name]
    assert launched() == candidates.rows_of("scores_kernel", SHAPES)[3].options
    others = candidates.Shapes(dtype="bfloat16", head_dim=32, state_dim=128, tokens="longer")
    assert launched(shapes=others) == candidates.rows_of("scores_kernel", others)[0].options
    assert chosen.read_choices(file, GPU) == [kept("scores_kernel", 3), kept("carry_kernel", 1)]


def damaged(file: Path, **changes: Any) -> None:
    chosen.write_choices(file, GPU, [kept("scores_kernel", 3)])
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"format": "another 1"}, "is no file of choices of this version"),
        ({"gpu": "NVIDIA Other"}, "was made for gpu NVIDIA Other, not NVIDIA Imaginary 1"),
        ({"torch": "1.0"}, "was made for torch 1.0"),
        ({"choices": [{"kernel": "scores_kernel"}]}, "is damaged"),
        ({"choices": {"a": 1}}, "is damaged"),
        ({"choices": [kept("scores_kernel", 0).to_dict() | {"candidate": "1,000 warps"}]}, "'1,000 warps'"),
        ({"choices": [kept("scores_kernel", 0).to_dict() | {"kernel": "another"}]}, "another cannot be"),
        ({"choices": [kept("carry_kernel", 0).to_dict() | {"shapes": {"dtype": []}}]}, "is damaged"),
    ],
)
def test_a_damaged_or_foreign_file_is_said_once_and_not_used(
    changes: dict[str, Any], said: str, caplog: pytest.LogCaptureFixture
) -> None:
    file = chosen.file_for(GPU)
    damaged(file, **changes)
    with caplog.at_level(logging.WARNING):
        assert launched() == candidates.rows_of("scores_kernel", SHAPES)[0].options
        launched("carry_kernel")
    (record,) = caplog.records
    assert said in record.getMessage()
    assert str(file) in record.getMessage()
    assert "tune" in record.getMessage()


def test_a_file_cut_short_is_not_used(caplog: pytest.LogCaptureFixture) -> None:
    file = chosen.file_for(GPU)
    damaged(file)
    file.write_text(file.read_text()[:100])
    with caplog.at_level(logging.WARNING):
        assert launched() == candidates.rows_of("scores_kernel", SHAPES)[0].options
    assert "cannot be read" in caplog.text


def test_a_write_that_fails_leaves_what_was_there(monkeypatch: pytest.MonkeyPatch) -> None:
    file = chosen.file_for(GPU)
    chosen.write_choices(file, GPU, [kept("scores_kernel", 3)])
    before = file.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr(chosen.os, "fsync", full)
    with pytest.raises(OSError, match="full"):
        chosen.write_choices(file, GPU, [])
    assert file.read_bytes() == before
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def small_trials() -> list[Any]:
    """A tiny scan of several chunks, and rows of channels."""
    scans = trials.scans(torch.float32, 8, 16, 20, 1)
    return [*scans, *trials.rows_of_channels(torch.float32, 24, 9, 1)]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few heads and tokens, and chunks of two tiles."""
    monkeypatch.setattr(trials, "HEADS", 2)
    monkeypatch.setattr(trials, "CHECKED_HEADS", 2)
    monkeypatch.setattr(ssd, "LARGEST_SINGLE_CHUNK", 16)
    monkeypatch.setattr(ssd, "CHUNK", 16)


def counting_clock(works: Sequence[Any]) -> list[float]:
    """The second is the fastest."""
    return [10.0, 5.0, *[9.0] * (len(works) - 2)][: len(works)]


@needs_interpreter
@pytest.mark.usefixtures("small")
def test_each_kernel_of_the_table_is_tried_and_the_fastest_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = set[str]()
    # The interpreter is slow.
    monkeypatch.setattr(trials, "rows_of", lambda *names: candidates.rows_of(*names)[:2])
    for trial in small_trials():
        for kernel, found in zip(trial.kernels, trials.tried(trial, CPU, counting_clock), strict=True):
            rows = candidates.rows_of(kernel, trial.shapes)
            assert found.dropped == {}
            assert found.choice.candidate == rows[min(1, len(rows) - 1)].name
            seen.add(kernel)
    # Those of a block are run in test_block_launches.py.
    blocks = [
        trial
        for length in (197, 4097)
        for trial in block_trials.block_trials(torch.float32, 16, 128, length, 1)
    ]
    blocks += branch_trials.branch_trials(torch.float32, 24)
    assert seen | {kernel for trial in blocks for kernel in trial.kernels} == set(candidates.TABLE)


@needs_interpreter
@pytest.mark.usefixtures("small")
def test_a_row_that_is_wrong_or_fails_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    trial = trials.rows_of_channels(torch.float32, 24, 9, 1)[0]
    right = trial.prepare

    def prepared(device: torch.device, batch: int, checked: bool) -> Any:
        inputs = right(device, batch, checked)
        work = inputs.work

        def spoilt() -> Any:
            options = chosen.launch_of("conv_silu_kernel", trial.shapes, device)
            if options["TOKENS"] == 64:
                raise RuntimeError("out of resource")
            (y,) = work()
            return (y * (float("nan") if options["CHANNELS"] == 256 else 1),)

        return trials.TrialInputs(work=spoilt, expected=inputs.expected)

    spoilt = trials.KernelTrial(**{**vars(trial), "prepare": prepared})
    (found,) = trials.tried(spoilt, CPU, lambda works: [1.0] * len(works))
    names = {row.name: row.constants for row in candidates.rows_of("conv_silu_kernel", trial.shapes)}
    assert {name for name in names if name not in found.dropped} == set(found.choice.microseconds)
    assert sorted(why.partition(":")[0] for why in found.dropped.values()) == [
        "RuntimeError",
        "result 0 is off by nan of its largest value, 1e-04 is allowed",
    ]
    # As fast as the first: that stays.
    assert found.choice.candidate == next(iter(names))


def test_an_outlier_is_no_reason_to_change() -> None:
    trial = trials.rows_of_channels(torch.float32, 24, 9, 1)[0]
    rows = candidates.rows_of("conv_silu_kernel", trial.shapes)
    found = trials._fastest(trial, "conv_silu_kernel", rows, lambda: (), lambda works: [10, 9.9, 10, 10, 10])
    assert found.candidate == rows[0].name


def test_what_is_tried_is_launched_within_the_block_alone() -> None:
    first, second, *_ = candidates.rows_of("scores_kernel", SHAPES)
    with chosen.trying("scores_kernel", second):
        assert chosen.launch_of("scores_kernel", SHAPES, CPU) == second.options
        assert chosen.launch_of("carry_kernel", SHAPES, CPU)["num_warps"] == 4
    assert chosen.launch_of("scores_kernel", SHAPES, CPU) == first.options


@needs_interpreter
@pytest.mark.usefixtures("small")
def test_tune_keeps_what_it_chose_and_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With a GPU that is imagined: kernels are interpreted, nothing is compiled, times are made up."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: GPU)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(tune_job, "_compile", lambda jobs, gpu, report: None)
    monkeypatch.setattr(trials.KernelTrial, "jobs", lambda trial, gpu: [])
    monkeypatch.setattr(known_trials, "all_trials", lambda dtypes, head_dims, gpu: small_trials()[-4:])
    monkeypatch.setattr(trials, "graph_clock", counting_clock)
    tried = trials.tried
    monkeypatch.setattr(trials, "tried", lambda trial, device, clock: tried(trial, CPU, clock))
    assert cli.main(["tune", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["gpu"] == GPU
    assert found["changed"] == 4
    assert [row["kernel"] for row in found["choices"]] == [
        kernel for trial in small_trials()[-4:] for kernel in trial.kernels
    ]
    shapes = small_trials()[-1].shapes
    assert launched("conv_silu_kernel", shapes)["TOKENS"] == 32
    assert cli.main(["tune"]) == 0
    said = capsys.readouterr().out
    assert "4 of 4 launches are not the default" in said
    assert str(chosen.file_for(GPU)) in said.replace("\n", "")


def test_tune_refuses_in_one_line_what_it_cannot_do() -> None:
    if not torch.cuda.is_available():
        with pytest.raises(MatMambaError, match=r"^there is no GPU for CUDA here"):
            tune_job.tune()
    with pytest.raises(MatMambaError, match="dtypes has 'int8': it can have bfloat16, float16, float32"):
        tune_job.tune(dtypes=["int8"])


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
@pytest.mark.parametrize("head_dim", [16, 32])
def test_on_a_gpu_every_row_computes_the_definition(dtype: str, head_dim: int) -> None:
    for trial in known_trials.all_trials([dtype], [head_dim]):
        inputs = trial.prepare(torch.device("cuda"), 1, True)
        expected = inputs.expected()
        for kernel in trial.kernels:
            for row in candidates.rows_of(kernel, trial.shapes):
                work = partial(trials.launched_by, kernel, row, inputs.work)
                fault = trials.fault_of(work, expected, inputs.sums, trial.shapes)
                assert fault is None, f"{kernel}, {trial}, {row.name}"


@needs_interpreter
def test_where_kernels_are_interpreted_nothing_can_be_compiled() -> None:
    work = trials.rows_of_channels(torch.float32, 24, 9, 1)[0].prepare(CPU, 1, False).work
    with pytest.raises(ahead.NothingRecordedError, match="interprets"):
        ahead.recorded(work, 90)
