"""How pybind11's classes behave: what the fake's classes are made of.

Wrong arguments are a TypeError and nothing is converted but what pybind11 converts; objects take no attributes that
they do not have; most classes cannot be made from outside; enums are equal to their own members only. All of that is
compared with the real bindings in `tests/test_tensorrt_conformance.py`.
"""

from __future__ import annotations

import ctypes
import functools
import inspect
import operator
import sys
import types
import typing
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar, TypeVar

Self = TypeVar("Self")
Buffer = bytes | bytearray | memoryview
"""As an annotation: anything with the buffer protocol."""


class Bound(type):
    """Of classes that come from C++: only some can be made from Python, and a subclass must call `__init__`."""

    def __call__(cls, *arguments: Any, **named: Any) -> Any:
        if not getattr(cls, "_constructible", False):
            raise TypeError(f"tensorrt.{cls.__name__}: No constructor defined!")
        made = super().__call__(*arguments, **named)
        if not made._made:
            raise TypeError(f"tensorrt.{cls.__name__}.__init__() must be called when overriding __init__")
        return made


def make(kind: type[Self], **fields: Any) -> Self:
    """An object of a class that cannot be made from outside."""
    made = kind.__new__(kind)
    for name, value in fields.items():
        setattr(made, name, value)
    return made


def bound(function: Callable[..., Any]) -> Callable[..., Any]:
    """A method whose arguments are checked and converted as its annotations say."""
    signature: inspect.Signature | None = None

    @functools.wraps(function)
    def checked(*arguments: Any, **named: Any) -> Any:
        nonlocal signature
        signature = signature or inspect.signature(function, eval_str=True)
        try:
            given = signature.bind(*arguments, **named)
            for name, value in given.arguments.items():
                annotation = signature.parameters[name].annotation
                if annotation is not inspect.Parameter.empty:
                    given.arguments[name] = _converted(value, annotation)
        except TypeError as error:
            raise TypeError(f"{function.__name__}(): incompatible function arguments ({error})") from error
        return function(*given.args, **given.kwargs)

    return checked


def _converted(value: Any, annotation: Any) -> Any:
    if isinstance(annotation, types.UnionType) and annotation != Buffer:
        if value is None and type(None) in typing.get_args(annotation):
            return None
        annotation = next(kind for kind in typing.get_args(annotation) if kind is not type(None))
    if annotation is int:
        number = operator.index(value)
        if not -(2**63) <= number < 2**64:
            raise TypeError(f"{number} does not fit")
        return number
    if annotation == Buffer:
        return bytes(memoryview(value))
    if annotation is Dims:
        return value if isinstance(value, Dims) else Dims(value)
    if annotation is str and isinstance(value, bytes):
        return value.decode()
    if not isinstance(value, annotation):
        raise TypeError(f"{value!r} is no {annotation.__name__}")
    return value


class Enum:
    """An enum of the bindings. Those which C++ calls arithmetic can be ordered, but only among themselves."""

    __slots__ = ("_value",)
    __members__: ClassVar[dict[str, Any]] = {}
    _ordered = False

    def __init__(self, value: int) -> None:
        self._value = operator.index(value)

    @property
    def name(self) -> str:
        return next((name for name, member in self.__members__.items() if member._value == self._value), "???")

    @property
    def value(self) -> int:
        return self._value

    def __index__(self) -> int:
        return self._value

    __int__ = __index__

    def __hash__(self) -> int:
        return hash(self._value)

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and other._value == self._value

    def _compared(self, other: object, operation: Callable[[int, int], bool]) -> Any:
        if not self._ordered:
            return NotImplemented
        if type(other) is not type(self):
            raise TypeError("Expected an enumeration of matching type!")
        return operation(self._value, other._value)

    def __lt__(self, other: object) -> Any:
        return self._compared(other, operator.lt)

    def __le__(self, other: object) -> Any:
        return self._compared(other, operator.le)

    def __gt__(self, other: object) -> Any:
        return self._compared(other, operator.gt)

    def __ge__(self, other: object) -> Any:
        return self._compared(other, operator.ge)

    def __str__(self) -> str:
        return f"{type(self).__name__}.{self.name}"

    def __repr__(self) -> str:
        return f"<{self}: {self._value}>"


def enum(name: str, *, ordered: bool = False, **values: int) -> type[Enum]:
    kind = type(name, (Enum,), {"__slots__": (), "_ordered": ordered, "__members__": {}})
    for key, value in values.items():
        kind.__members__[key] = kind(value)
        setattr(kind, key, kind.__members__[key])
    return kind


class Dims(metaclass=Bound):
    """A shape. Not a tuple, without a hash, and equal to tuples and lists but to nothing else, not even to another."""

    __slots__ = ("_made", "_sizes")
    __hash__ = None
    _constructible = True
    MAX_DIMS = 8

    def __init__(self, shape: Sequence[int] = ()) -> None:
        if isinstance(shape, str | bytes) or not isinstance(shape, Sequence | Dims):
            raise TypeError(f"__init__(): incompatible constructor arguments ({shape!r})")
        if len(shape) > self.MAX_DIMS:
            raise ValueError(f"Input length {len(shape)}. Max expected length is {self.MAX_DIMS}")
        self._sizes = tuple(operator.index(size) for size in shape)
        self._made = True

    def __len__(self) -> int:
        return len(self._sizes)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, int) and not -len(self._sizes) <= index < len(self._sizes):
            raise IndexError("Out of bounds")
        return self._sizes[index]

    def __iter__(self) -> Iterator[int]:
        return iter(self._sizes)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, tuple | list):
            raise TypeError("__eq__(): incompatible function arguments")
        return self._sizes == tuple(other)

    def __repr__(self) -> str:
        return str(self._sizes)


class IHostMemory(ctypes.Structure):
    """Bytes that belong to TensorRT: a buffer without length or index of its own."""

    @classmethod
    def _of(cls, data: bytes) -> IHostMemory:
        sized = type("IHostMemory", (cls,), {"_fields_": [("_data", ctypes.c_ubyte * len(data))], "__slots__": ()})
        made: IHostMemory = sized.from_buffer_copy(data)
        return made

    def __init__(self) -> None:
        raise TypeError("tensorrt.IHostMemory: No constructor defined!")

    @property
    def nbytes(self) -> int:
        return ctypes.sizeof(self)


class ILogger(metaclass=Bound):
    """What a program subclasses to hear TensorRT."""

    __slots__ = ("__weakref__", "_made")
    _constructible = True
    Severity = enum("Severity", ordered=True, INTERNAL_ERROR=0, ERROR=1, WARNING=2, INFO=3, VERBOSE=4)
    INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = Severity.__members__.values()

    def __new__(cls, *_arguments: Any, **_named: Any) -> ILogger:
        made = super().__new__(cls)
        made._made = False
        return made

    def __init__(self) -> None:
        self._made = True

    def log(self, severity: Enum, msg: str) -> None:
        raise RuntimeError('Tried to call pure virtual function "ILogger::log"')


class IProgressMonitor(metaclass=Bound):
    """What a program subclasses to watch a build."""

    __slots__ = ("__weakref__", "_made")
    _constructible = True

    def __new__(cls, *_arguments: Any, **_named: Any) -> IProgressMonitor:
        made = super().__new__(cls)
        made._made = False
        return made

    def __init__(self) -> None:
        self._made = True

    def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
        raise RuntimeError('Tried to call pure virtual function "IProgressMonitor::phase_start"')

    def step_complete(self, phase_name: str, step: int) -> bool:
        raise RuntimeError('Tried to call pure virtual function "IProgressMonitor::step_complete"')

    def phase_finish(self, phase_name: str) -> None:
        raise RuntimeError('Tried to call pure virtual function "IProgressMonitor::phase_finish"')


def called_back(method: Callable[..., Any], *arguments: Any) -> Any:
    """What a program's own method returns; an exception goes to stderr and no further, even KeyboardInterrupt."""
    try:
        return method(*arguments)
    except BaseException as error:
        print(f"[ERROR] Exception caught in {method.__name__}(): {type(error).__name__}: {error}", file=sys.stderr)
        return None
