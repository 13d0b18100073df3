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
from collections.abc import Callable, Mapping, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any


def names_of(
    module: str, places: Mapping[str, Sequence[str]]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """`__getattr__` and `__dir__` of a module whose names are imported when they are asked for (PEP 562).

    Args:
        module: its name.
        places: the names that it offers, by the module that holds them, as it stands in an import there.
    """
    known = {name: place for place, names in places.items() for name in names}

    def find(name: str) -> Any:
        if name not in known:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        here = sys.modules[module]
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
        return getattr(library, name)


def when_imported(name: str, then: Callable[[], Any]) -> None:
    """Do something when a library has been imported, whoever imports it; at once where that was done.

    Args:
        name: of the library's package.
        then: what is done; it may import the library.
    """
    if name in sys.modules:
        then()
    else:
        sys.meta_path.insert(0, _Awaited(name, then))


class _Awaited(MetaPathFinder):
    """Finds one package, as Python would, for a loader that does something more."""

    def __init__(self, name: str, then: Callable[[], Any]) -> None:
        self._name, self._then = name, then

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        spec = PathFinder.find_spec(fullname, path, target) if fullname == self._name else None
        if spec is not None and spec.loader is not None:
            spec.loader = _Then(spec.loader, self._then)
        return spec


class _Then(Loader):
    """A package's own loader, and behind it something else."""

    def __init__(self, own: Loader, then: Callable[[], Any]) -> None:
        self._own, self._then = own, then

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._own.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        # Whoever asks the package for its loader, to read a file of it for example, finds its own.
        module.__loader__ = self._own
        if module.__spec__ is not None:
            module.__spec__.loader = self._own
        self._own.exec_module(module)
        self._then()
