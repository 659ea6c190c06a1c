"""A plan, running: the program of a CUDA engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import tensorrt as trt

from vidsr.backends.cuda.device import Stream
from vidsr.backends.trt.log import log
from vidsr.errors import BackendError, DeviceLostError, DeviceMemoryError
from vidsr.graph import Planes, PlaneTensor

__all__ = ["PlanError", "TensorRtProgram"]

_TYPES = {
    trt.DataType.UINT8: np.dtype(np.uint8),
    trt.DataType.HALF: np.dtype(np.float16),
    trt.DataType.FLOAT: np.dtype(np.float32),
}
_FREE = -1
"""The length of a dimension that a profile leaves open."""


class PlanError(BackendError):
    """TensorRT does not take a plan; another may be built."""


class TensorRtProgram:
    """Made, used and closed where the device is current.

    given, made: the tensors the plan must have. Raises PlanError where it has others or TensorRT refuses it.
    """

    def __init__(
        self,
        plan: bytes,
        given: Sequence[PlaneTensor],
        made: Sequence[PlaneTensor],
        *,
        planes: Planes,
        description: str,
    ) -> None:
        self.planes, self.description = planes, description
        log().clear()
        try:
            self._runtime = trt.Runtime(log())
        except TypeError as error:  # what the bindings raise when the library gives nothing back
            raise BackendError(f"TensorRT cannot start here ({log().reason()})") from error
        try:
            self.engine = self._runtime.deserialize_cuda_engine(plan)
            if self.engine is None:
                raise _refusal(log().reason())
            self.given = tuple(given)
            self._check(made)
        except BaseException:
            self.close()
            raise

    def bind(self, stream: Stream, addresses: Mapping[str, int]) -> TensorRtRun:
        return TensorRtRun(self, stream, addresses)

    def close(self) -> None:
        # The runtime must outlive the engine.
        self.engine = None
        self._runtime = None

    def _check(self, made: Sequence[PlaneTensor]) -> None:
        found = {}
        for index in range(self.engine.num_io_tensors):
            name = self.engine.get_tensor_name(index)
            into = self.engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT
            dtype, shape = _TYPES.get(self.engine.get_tensor_dtype(name)), tuple(self.engine.get_tensor_shape(name))
            found[name] = (into, dtype, shape)
        wanted = {tensor.name: (tensor in self.given, tensor.dtype, tensor.shape) for tensor in (*self.given, *made)}
        if found.keys() != wanted.keys():
            raise PlanError(f"it has the tensors {', '.join(sorted(found))}, not {', '.join(sorted(wanted))}")
        for name, (into, dtype, shape) in wanted.items():
            length = found[name][2]
            fits = len(length) == len(shape) and all(
                have in (_FREE, want) for have, want in zip(length, shape, strict=True)
            )
            if not fits or found[name][:2] != (into, dtype):
                raise PlanError(f"its tensor {name} is not {dtype} {'x'.join(map(str, shape))}")


def _refusal(reason: str) -> BackendError:
    """Why a plan was not taken: it is to blame, unless the card was full."""
    if "memory" in reason.lower():
        return DeviceMemoryError(f"the card has no room for the plan: {reason}")
    return PlanError(f"TensorRT does not take it: {reason}")


class TensorRtRun:
    """One execution context of `program`, bound to the memory of one slot."""

    def __init__(self, program: TensorRtProgram, stream: Stream, addresses: Mapping[str, int]) -> None:
        self._stream = stream
        log().clear()
        self._context = program.engine.create_execution_context()
        if self._context is None:
            needed = program.engine.device_memory_size_v2 / 2**20
            raise DeviceMemoryError(
                f"TensorRT could not make room for one more frame ({needed:.0f} MiB on the card): {log().reason()}"
            )
        try:
            self._bind(program.given, addresses)
        except RuntimeError as error:  # what two of these calls raise instead of saying so
            self.close()
            raise BackendError(f"TensorRT refused a slot: {error}") from error
        except BaseException:
            self.close()
            raise

    def enqueue(self) -> None:
        self._demand(self._context.execute_async_v3(self._stream.handle), "a frame")

    def close(self) -> None:
        self._context = None

    def _bind(self, given: Sequence[PlaneTensor], addresses: Mapping[str, int]) -> None:
        self._demand(self._context.set_optimization_profile_async(0, self._stream.handle), "its profile")
        for tensor in given:
            self._demand(self._context.set_input_shape(tensor.name, tensor.shape), f"the shape of {tensor.name}")
        self._demand(not self._context.infer_shapes(), "the shapes")
        for name, address in addresses.items():
            self._demand(self._context.set_tensor_address(name, address), f"the address of {name}")

    def _demand(self, taken: bool, what: str) -> None:
        """TensorRT's calls say so when they fail; few raise anything."""
        if taken:
            return
        refusal = BackendError(f"TensorRT refused {what}: {log().reason()}")
        try:
            self._stream.wait()  # says whether the card is lost
        except DeviceLostError:
            raise
        except BackendError:
            raise refusal from None
        raise refusal
