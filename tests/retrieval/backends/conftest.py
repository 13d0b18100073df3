"""Each engine in turn."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from pushed_places import KINDS, Places


@pytest.fixture(params=KINDS)
def places(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Places]:
    """A place of each kind that nothing was pushed to."""
    found = Places(request.param, tmp_path)
    yield found
    found.remove()
