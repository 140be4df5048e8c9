"""Gives PyTorch, before it imports ``torch.cuda``, what that module expects of a build with CUDA.

The devices are called ``cuda:0`` and so on. Each operation is the CPU's kernel, done at once. The
memory is the host's, counted for each device and limited for each process, so that running out of
it is a ``torch.OutOfMemoryError``. Tensors of two devices in one operation are an error, attention
is one operation that keeps no scores, and ``torch.cuda.set_sync_debug_mode("error")`` refuses
whatever lets the host wait for a device. Processes that ask for NCCL get gloo.

What a real device has and these have not: work that goes on while the host goes on, so a missing
synchronisation is not found; graphs; kernels of its own, so rounding differs on a real one; a limit
that several processes share. For bitsandbytes' kernels the CPU's stand in (``bits.py``).

The functions of ``torch.cuda`` are PyTorch's own. What they call in ``torch._C``, and a build
without CUDA lacks, is defined here, on the library that ``device/`` makes.
"""

from __future__ import annotations

import ctypes
import importlib
import sys
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

LISTENER = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_char_p)
CAPABILITY = (9, 0)
"""Compute capability of the device, an H100's."""

COLLECTIVES = (
    *("allreduce", "allreduce_coalesced", "broadcast", "reduce", "barrier", "send", "recv"),
    *("allgather", "allgather_coalesced", "all_gather_single", "all_gather_single_coalesced"),
    *("reduce_scatter", "reduce_scatter_single", "reduce_scatter_single_coalesced", "gather"),
    *("alltoall", "all_to_all_single", "scatter", "recv_anysource"),
)
"""Methods of a process group that take tensors."""


class Library:
    """The functions of the library, without their prefix."""

    def __init__(self, path: str) -> None:
        self._library = ctypes.CDLL(path)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        function: Any = getattr(self._library, f"simulated_{name}")
        function.restype = None if name in ("reset_peak", "listen") else ctypes.c_int64

        def call(*arguments: Any) -> Any:  # torch keeps such functions in a dictionary
            return function(*arguments)

        return call


def install(path: str) -> None:
    """Load the library at ``path`` and define what ``torch.cuda`` needs."""
    library = Library(path)
    own: Any = sys.modules["torch._C"]
    sys.modules["torch.version"].cuda = "13.0"  # type: ignore[attr-defined]  # a module's
    own._has_cuda = True
    own._cudart = _runtime(library)
    own._CudaDeviceProperties = SimpleNamespace
    own._CUDAGraph = own._graph_pool_handle = object  # torch.cuda imports them; none uses them
    for name, function in {**_devices(library), **_memory(library), **_streams(own)}.items():
        setattr(own, f"_cuda_{name}", function)
    marks = ("rangePushA", "rangePop", "rangeStartA", "rangeEnd", "markA")
    own._nvtx = SimpleNamespace(**dict.fromkeys(marks, lambda *_: 0))
    own._nccl_version = lambda: 2 << 32  # torch.distributed logs it
    own._nccl_version_suffix = bytes
    own._simulated_cuda = library
    _storages()


def _runtime(library: Library) -> Any:
    def free_and_total(device: int) -> tuple[int, int]:
        total = library.total_memory()
        return total - library.allocated(device), total

    return SimpleNamespace(
        cudaMemGetInfo=free_and_total,
        cudaError=SimpleNamespace(success=0),
        cudaGetErrorString=str,
        cudaHostRegister=lambda *_: 0,
        cudaHostUnregister=lambda *_: 0,
    )


def _devices(library: Library) -> dict[str, Callable[..., Any]]:
    def initialise() -> None:
        import torch

        if not library.device_count():
            raise RuntimeError("No CUDA GPUs are available")
        library.hand_out_default_generators(True)
        torch.cuda.default_generators = tuple(
            torch.Generator(device=f"cuda:{number}") for number in range(library.device_count())
        )
        library.hand_out_default_generators(False)
        torch.cuda._get_device_properties = properties  # type: ignore[attr-defined]  # private

    def properties(device: int) -> Any:
        return SimpleNamespace(
            name="Simulated CUDA device",
            total_memory=library.total_memory(),
            major=CAPABILITY[0],
            minor=CAPABILITY[1],
            multi_processor_count=132,
            warp_size=32,
            is_integrated=0,
            uuid=f"simulated-{library.device_number(device)}",
        )

    return {
        "init": initialise,
        "getDeviceCount": library.device_count,
        "getDevice": library.current_device,
        "setDevice": library.exchange_device,
        "exchangeDevice": library.exchange_device,
        "maybeExchangeDevice": library.exchange_device,
        "isInBadFork": lambda: bool(library.forked()),
        "getArchFlags": lambda: "sm_90",
        "canDeviceAccessPeer": lambda *_: True,
        "isCurrentStreamCapturing": lambda: False,
        "ipc_collect": lambda: None,
    } | _synchronisation(library)


def _synchronisation(library: Library) -> dict[str, Callable[..., Any]]:
    """``torch.cuda.set_sync_debug_mode``, whose mode 2 makes a wait of the host an error."""
    mode = 0
    refuse = LISTENER(lambda _: 1)

    def set_mode(wanted: int) -> None:
        nonlocal mode
        mode = wanted
        library.listen(refuse if wanted == 2 else LISTENER())

    return {
        "set_sync_debug_mode": set_mode,
        "get_sync_debug_mode": lambda: mode,
        "synchronize": lambda: None,
    }


def _memory(library: Library) -> dict[str, Callable[..., Any]]:
    def stats(device: int) -> dict[str, Any]:
        bytes_now = {"current": library.allocated(device), "peak": library.peak(device)}
        pools = {"all": {**bytes_now, "allocated": 0, "freed": 0}}
        kinds = ("allocated_bytes", "reserved_bytes", "active_bytes", "requested_bytes")
        return {
            **dict.fromkeys(kinds, pools),
            "allocation": {"all": {"allocated": library.allocations(device)}},
            "num_ooms": library.failures(device),
        }

    return {
        "memoryStats": stats,
        "resetPeakMemoryStats": library.reset_peak,
        "resetAccumulatedMemoryStats": lambda _: None,
        "emptyCache": lambda: None,
        "getAllocatorBackend": lambda: "native",
    }


def _streams(own: Any) -> dict[str, Callable[..., Any]]:
    """Streams and events are PyTorch's of any accelerator, under their names of CUDA."""

    class Stream(own.Stream):  # type: ignore[misc]  # of Any
        def __new__(cls, *, priority: int = 0, **ids: int) -> Any:
            made = {} if ids else {"device": "cuda"}
            return super().__new__(cls, **made, **ids, priority=priority)

        @property
        def cuda_stream(self) -> int:
            return int(self.stream_id)

    class Event(own.Event):  # type: ignore[misc]  # of Any
        def __new__(
            cls,
            enable_timing: bool = False,
            blocking: bool = False,
            interprocess: bool = False,
            external: bool = False,
        ) -> Any:
            return super().__new__(cls, "cuda", enable_timing=enable_timing, blocking=blocking)

        def record(self, stream: Any) -> None:
            super().record(stream)
            self.seconds = time.perf_counter()

        def elapsed_time(self, end: Any) -> float:  # PyTorch's own wants no class derived from it
            return float(1e3 * (end.seconds - self.seconds))

    own._CudaStreamBase, own._CudaEventBase = Stream, Event

    def known(stream: Any) -> tuple[int, int, int]:
        return stream.stream_id, stream.device_index, stream.device_type

    def current(device: int) -> tuple[int, int, int]:
        return known(own._accelerator_getStream(device))

    def set_current(*, stream_id: int, device_index: int, device_type: int) -> None:
        own._accelerator_setStream(
            Stream(stream_id=stream_id, device_index=device_index, device_type=device_type)
        )

    return {
        "getCurrentStream": current,
        "getCurrentRawStream": lambda device: current(device)[0],
        "getDefaultStream": lambda device: (0, device, 1),
        "setStream": set_current,
    }


def _storages() -> None:
    """``torch.UntypedStorage(bytes, device="cuda")``, which a build without CUDA refuses."""
    from torch.storage import UntypedStorage

    def new(cls: Any, *arguments: Any, device: Any = None, **others: Any) -> Any:
        import torch

        if device is None or torch.device(device).type != "cuda":
            given = others if device is None else {"device": device, **others}
            return super(UntypedStorage, cls).__new__(cls, *arguments, **given)
        size = arguments[0] if arguments else 0
        return torch.empty(size, dtype=torch.uint8, device=device).untyped_storage()

    UntypedStorage.__new__ = new  # type: ignore[method-assign]  # as simulating means


def say_gloo() -> None:
    """Give ``torch.distributed``, before it looks for NCCL, a process group of that name. It hands
    the memory of devices to gloo."""
    import torch
    from torch._C import _distributed_c10d as c10d

    def host(value: Any) -> Any:
        if isinstance(value, torch.Tensor) and value.is_cuda:
            return torch.ops.simulated_cuda.host(value)
        return [host(one) for one in value] if isinstance(value, list) else value

    class ProcessGroupNCCL(c10d.ProcessGroup):
        Options = type("Options", (SimpleNamespace,), {})

        def __init__(self, store: Any, rank: int, size: int, options: Any) -> None:
            super().__init__(rank, size)
            kind = c10d.ProcessGroup.BackendType.GLOO
            gloo = c10d.ProcessGroupGloo(store, rank, size, timeout=options._timeout)
            gloo._set_sequence_number_for_group()
            self.of_host = c10d.ProcessGroup(store, rank, size)
            self.of_host._register_backend(torch.device("cpu"), kind, gloo)
            self.of_host._set_default_backend(kind)

        def getBackendName(self) -> str:
            return "nccl"

        def _get_backend(self, device: Any) -> Any:
            return self.of_host._get_backend(torch.device("cpu"))

        def _set_sequence_number_for_group(self) -> None:
            pass  # gloo's is set

    def through_gloo(name: str) -> Callable[..., Any]:
        def collective(self: Any, *arguments: Any, **options: Any) -> Any:
            return getattr(self.of_host, name)(*map(host, arguments), **options)

        return collective

    for name in COLLECTIVES:
        setattr(ProcessGroupNCCL, name, through_gloo(name))
    c10d._DEFAULT_PG_NCCL_TIMEOUT = c10d._DEFAULT_PG_TIMEOUT
    c10d.ProcessGroupNCCL = ProcessGroupNCCL  # type: ignore[misc]  # as simulating means


def leave_out_libraries() -> None:
    """Let bitsandbytes load its library for the CPU: one for CUDA wants NVIDIA's libraries."""
    specs = importlib.import_module("bitsandbytes.cuda_specs")
    specs.get_cuda_specs = lambda: None
