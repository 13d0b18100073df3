"""Without a GPU, Triton's kernels run in its interpreter. It is chosen when Triton is first imported."""

import os
from importlib.util import find_spec
from typing import Any

import torch


def patch_once() -> None:
    """Have the interpreter replace the language once in a launch, not again at every call within it.

    Otherwise each function that a kernel calls has all of `triton.language` looked through once more: two
    fifths of the time that the interpreter takes.
    """
    from triton.runtime import interpreter
    from triton.runtime.interpreter import GridExecutor, _patch_lang

    launch, language = GridExecutor.__call__, interpreter.tl
    # By launch: which of the language's modules are replaced.
    launches: list[set[tuple[bool, bool]]] = []

    def patch(function: Any) -> Any:
        seen = {id(value) for value in function.__globals__.values()}
        known = (id(language) in seen, id(language.core) in seen)
        if launches and known in launches[-1]:
            return None
        if launches:
            launches[-1].add(known)
        return _patch_lang(function)

    def count(self: Any, *arguments: Any, **options: Any) -> None:
        launches.append(set())
        try:
            launch(self, *arguments, **options)
        finally:
            launches.pop()

    interpreter._patch_lang, GridExecutor.__call__ = patch, count


if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")
    if os.environ["TRITON_INTERPRET"] == "1" and find_spec("triton"):
        patch_once()
