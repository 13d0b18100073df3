"""What is imported when it is first used: names of a package, and libraries that take long to load.

    if TYPE_CHECKING:
        from .loader import Loader, make_loader
    else:
        __getattr__, __dir__ = names_of(__name__, {".loader": ("Loader", "make_loader")})

Who reads such a file, a type checker for example, sees ordinary imports; a program pays for what it uses.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any


def names_of(
    module: str,
    places: Mapping[str, Sequence[str]],
    within: Callable[[], AbstractContextManager[Any]] = nullcontext,
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """`__getattr__` and `__dir__` of a module whose names are imported when they are asked for (PEP 562).

    Args:
        module: its name.
        places: the names that it offers, by the module that holds them, as it stands in an import there.
        within: makes the block in which something is imported.
    """
    known = {name: place for place, names in places.items() for name in names}

    def find(name: str) -> Any:
        if name not in known:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        here = sys.modules[module]
        with within():
            found = getattr(importlib.import_module(known[name], here.__package__), name)
        # Found at once from now on.
        setattr(here, name, found)
        return found

    return find, lambda: sorted({*vars(sys.modules[module]), *known})


class Deferred:
    """A library that is imported when something of it is first asked for.

    Args:
        name: of the module.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, name: str) -> Any:
        # Asked for anew each time: what others change there is seen.
        library = sys.modules.get(self._name) or importlib.import_module(self._name)
        try:
            return getattr(library, name)
        except AttributeError:
            # Another thread may be at importing it: this waits for that.
            return getattr(importlib.import_module(self._name), name)


def when_imported(name: str, then: Callable[[], Any]) -> None:
    """Do something when a library has been imported, whoever imports it; at once where that was done.

    Args:
        name: of the library's package.
        then: what is done; it may import the library.
    """
    # None stands for a library that is not to be had.
    if sys.modules.get(name) is not None:
        then()
    else:
        around_import(name, partial(_followed_by, then))


@contextmanager
def _followed_by(then: Callable[[], Any]) -> Iterator[None]:
    yield
    then()


def around_import(name: str, around: Callable[[], AbstractContextManager[Any]]) -> None:
    """Have a library imported within a block, whoever imports it; where it was imported, nothing is done.

    Args:
        name: of the library's package.
        around: makes the block.
    """
    if sys.modules.get(name) is None:
        sys.meta_path.insert(0, _Awaited(name, around))


class _Awaited(MetaPathFinder):
    """Finds one package, as Python and other finders would, for a loader that does something more."""

    def __init__(self, name: str, around: Callable[[], AbstractContextManager[Any]]) -> None:
        self._name, self._around = name, around

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        spec = self._found_by_others(path, target) if fullname == self._name else None
        if spec is not None and spec.loader is not None:
            spec.loader = _Within(spec.loader, self._around)
        return spec

    def _found_by_others(self, path: Sequence[str] | None, target: ModuleType | None) -> ModuleSpec | None:
        others = sys.meta_path[sys.meta_path.index(self) + 1 :]
        found = (other.find_spec(self._name, path, target) for other in others if hasattr(other, "find_spec"))
        return next((spec for spec in found if spec is not None), None)


class _Within(Loader):
    """A package's own loader, within a block."""

    def __init__(self, own: Loader, around: Callable[[], AbstractContextManager[Any]]) -> None:
        self._own, self._around = own, around

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._own.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        # Whoever asks the package for its loader, to read a file of it for example, finds its own.
        module.__loader__ = self._own
        if module.__spec__ is not None:
            module.__spec__.loader = self._own
        with self._around():
            self._own.exec_module(module)
