"""A push that is killed at any moment loses nothing and doubles nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[2]
# In a process without torch, whose threads would not survive a fork.
SCRIPT = """
import sys, json
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from killed_pushes import kill_pushes
print(json.dumps(kill_pushes(Path(sys.argv[2]), int(sys.argv[3]))))
"""


@pytest.mark.parametrize("kills", [4, pytest.param(20, marks=pytest.mark.slow)])
def test_killed_pushes_lose_and_double_nothing(tmp_path: Path, kills: int) -> None:
    command = [sys.executable, "-c", SCRIPT, str(TESTS), str(tmp_path), str(kills)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout)["killed"] == kills
