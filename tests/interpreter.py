"""Without a GPU, Triton's kernels run in its interpreter. It is chosen when Triton is first imported.

Half of its time would be spent on what changes no result, and is saved here.
"""

import os
from dataclasses import replace
from importlib.util import find_spec
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch


def hasten() -> None:
    """Spare the interpreter what it does in vain, or again and again."""
    from triton.runtime import interpreter

    # Sums and products of integers would be made once more in 64 bits, for assertions that are not made.
    builder = interpreter.interpreter_builder
    builder.options = replace(builder.options, sanitize_overflow=False)
    look_up_types(interpreter)
    move_bits(interpreter)
    share_shapes(interpreter.tl)
    replace_language_quickly(interpreter)


def look_up_types(interpreter: Any) -> None:
    """NumPy's types of Triton's by their names; otherwise a table of all is made for each."""
    tl, dtype_of = interpreter.tl, interpreter._get_np_dtype
    known: dict[str, Any] = {}

    def look_up(dtype: Any) -> Any:
        element = dtype.element_ty if isinstance(dtype, tl.block_type) else dtype
        name = "" if isinstance(element, tl.pointer_type) else element.name
        if name not in known:
            known[name] = dtype_of(element)
        return known[name]

    interpreter._get_np_dtype = look_up


def move_bits(interpreter: Any) -> None:
    """Between float32 and bfloat16, which is its upper half; otherwise sign, exponent and the rest apart."""
    convert = interpreter._convert_float

    def moved(data: Any, source: Any, target: Any, rounding: Any) -> Any:
        if rounding is None and (source.name, target.name) == ("bf16", "fp32"):
            return data.astype(np.uint32) << 16
        if rounding is None and (source.name, target.name) == ("fp32", "bf16"):
            return (np.ascontiguousarray(data).view(np.uint32) >> 16).astype(np.uint16)
        return convert(data, source, target, rounding)

    interpreter._convert_float = moved


def share_shapes(tl: Any) -> None:
    """Make what is said of a shape once; otherwise each operation says it in objects of its own."""
    make_type, known = tl.block_type.__init__, dict[Any, dict[str, Any]]()
    of_scalars = tl.constexpr(1), tl.tuple([])

    def make_block_type(self: Any, element_ty: Any, shape: Any) -> None:
        sizes = tuple(getattr(size, "value", size) for size in shape)
        # Pointers differ in more than their names.
        key = (element_ty.name, sizes) if type(element_ty) is tl.dtype else None
        if key not in known:
            make_type(self, element_ty, list(sizes))
            self.of_tensors = tl.constexpr(self.numel), tl.tuple([tl.constexpr(size) for size in sizes])
            if key is None:
                return
            known[key] = dict(vars(self))
        vars(self).update(known[key])

    def make_tensor(self: Any, handle: Any, type: Any) -> None:
        self.handle, self.type, self.dtype = handle, type, type.scalar
        self.numel, self.shape = type.of_tensors if type.is_block() else of_scalars

    tl.block_type.__init__, tl.tensor.__init__ = make_block_type, make_tensor


def replace_language_quickly(interpreter: Any) -> None:
    """Have the language replaced once in a launch, by what replaced it in the first.

    Otherwise all of `triton.language` is looked through in each launch, and again for each function that
    a kernel calls.
    """
    tl, executor = interpreter.tl, interpreter.GridExecutor
    launch, replace_language = executor.__call__, interpreter._patch_lang
    # Where something is replaced, its name, what was there, and what is there in a launch.
    changes: list[tuple[Any, str, Any, Any]] = []
    launches = [0]

    def look_through() -> None:
        scope = replace_language(SimpleNamespace(__globals__={"tl": tl, "core": tl.core}))
        first = {(id(owner), name): (owner, name, before) for owner, name, before in scope._changes[::-1]}
        changes.extend((*change, getattr(*change[:2])) for change in first.values())
        scope.restore()

    def within_launch(self: Any, *arguments: Any, **options: Any) -> None:
        if not changes:
            look_through()
        launches[0] += 1
        if launches[0] == 1:
            for owner, name, _, instead in changes:
                setattr(owner, name, instead)
        try:
            launch(self, *arguments, **options)
        finally:
            launches[0] -= 1
            if launches[0] == 0:
                for owner, name, before, _ in changes:
                    delattr(owner, name) if before is interpreter._MISSING else setattr(owner, name, before)

    executor.__call__ = within_launch
    interpreter._patch_lang = lambda function: SimpleNamespace(restore=lambda: None)


if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")
    if os.environ["TRITON_INTERPRET"] == "1" and find_spec("triton"):
        hasten()
