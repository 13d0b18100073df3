"""Dispatch to the commands: `train` is `train_command`, with a dataclass of flags and `run(arguments)`.

`run` returns nothing, or the exit status. What a user can cause is a `MatMambaError`, and becomes one line;
whatever else is raised is a fault of the program.
"""

from __future__ import annotations

import importlib
import logging
import os
import sys
import traceback
import warnings
from collections.abc import Sequence

from matmamba_common.interrupts import SAID, STATUS, interruptible
from rich.table import Table

from ..allocator import keep_freed_memory, load_torch_uncollected
from ..errors import ConfigError, MatMambaError, refusals
from ..nearest import did_you_mean
from .console import Console, Lines, replace_what_cannot_be_printed, say

COMMANDS = {
    "demo": "train, index and search handwritten digits, and write a report",
    "train": "train a model at all its widths",
    "distill": "train a student at all its widths in the space of another network",
    "validate": "measure a checkpoint at each width",
    "evaluate": "run a grid of search strategies, and plot quality against cost",
    "plan": "find the best way to search a gallery on this machine",
    "select": "find the best width within a budget",
    "extract": "write one width as a smaller model",
    "data": "convert a data set to shards, check one, or measure how fast it is read",
    "tune": "choose once how the kernels for this machine's GPU are launched",
    "timm": "run a script of timm with these models registered",
    "index": "add images to a gallery, or vectors made elsewhere",
    "merge": "put galleries into one, such as the shards of one collection",
    "reindex": "move a gallery to another model while it goes on answering",
    "serve": "answer searches over HTTP, with a page to search in",
    "search": "find the images of a gallery that are most like others",
    "watch": "tell which images of a gallery the frames of a video resemble, as they come",
    "duplicates": "find near-duplicates in a gallery",
    "knn-label": "suggest labels, and find suspicious ones",
    "gallery": "look into a gallery, change it, keep it whole, carry it elsewhere",
}
# Behind the traceback of a fault.
REPORT = (
    "matmamba: this is a fault of matmamba, not of what it was given: please report this with the lines above"
)
_EXAMPLES = """\
matmamba index --images PHOTOS --gallery G
matmamba search --gallery G query.jpg --k 10
matmamba train --data.name folder --data.root PHOTOS --output RUN"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status.

    That is 0; 1 for faults that were found, or a fault of the program, with its traceback; 2 for bad input,
    with one line; 130 if the command was interrupted.

    Args:
        argv: the words behind `matmamba`; by default those of this process.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments[:1]
    arguments = arguments[debug:]
    handler = logging.StreamHandler()
    handler.setFormatter(Lines("matmamba: %(message)s"))
    logging.basicConfig(level=logging.DEBUG if debug else logging.WARNING, handlers=[handler])
    if arguments[:1] != ["search"]:
        # Which scan computes, and why: once for each setting. A search is too short to be told.
        logging.getLogger("matmamba_vision.ops").setLevel(logging.INFO)
    logging.getLogger("PIL").setLevel(logging.INFO)
    if not debug:
        _hush()
    replace_what_cannot_be_printed()
    try:
        with interruptible(), refusals():
            return _run(arguments[0] if arguments else "--help", arguments[1:])
    except BrokenPipeError:
        # Whoever read our output has seen enough; what is left of it goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except MatMambaError as error:
        if debug:
            raise
        say(f"matmamba: error: {error}", stderr=True)
        return 2
    except KeyboardInterrupt:
        say(SAID, stderr=True)
        return STATUS
    except Exception:
        say(traceback.format_exc().rstrip(), stderr=True)
        say(REPORT, stderr=True)
        return 1


def _hush() -> None:
    """What libraries say to programmers is shown with --debug, or where Python was told to (-W)."""
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
    for name in ("onnxscript", "onnx_ir", "torch.onnx"):
        logging.getLogger(name).setLevel(logging.ERROR)


def _run(name: str, arguments: list[str]) -> int:
    if name in ("-h", "--help"):
        _print_help()
        return 0
    if name == "--version":
        say(f"matmamba {importlib.import_module('matmamba_vision').__version__}")
        return 0
    if name not in COMMANDS:
        raise ConfigError(
            f"unknown command {name!r}: one of {', '.join(COMMANDS)}{did_you_mean(name, COMMANDS)}"
        )
    keep_freed_memory()
    load_torch_uncollected()
    command = importlib.import_module(f".{name.replace('-', '_')}_command", __package__)
    return command.run(arguments) or 0


def _print_help() -> None:
    console = Console(highlight=False)
    table = Table.grid(padding=(0, 3))
    for name, summary in COMMANDS.items():
        table.add_row(f"  {name}", summary)
    console.print("usage: matmamba [--version] [--debug] COMMAND [--help] ...\n\ncommands:")
    console.print(table)
    console.print(
        "\n`matmamba COMMAND --help` lists a command's flags; --debug shows tracebacks.\n\nexamples:"
    )
    console.print("\n".join(f"  {line}" for line in _EXAMPLES.splitlines()), markup=False)
