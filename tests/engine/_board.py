# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs inside a release's environment: let vLLM decide as on a GPU, where there is none.

A model's shapes, its attention backend, the size of a block and the kernels of its weights follow from the board
that vLLM sees. `pretend` names one. What is asked of the board is answered from the table, and a kernel is a name
without a body. So a model can be built on the meta device, and never run.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import sys
import types
from dataclasses import dataclass
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

GIB = 1 << 30
#: The wheel's compiled parts, as far as something imports them by name.
COMPILED = (
    "_C",
    "_flashkda_C",
    "_C_stable_libtorch",
    "_moe_C",
    "vllm_flash_attn._vllm_fa2_C",
    "vllm_flash_attn._vllm_fa3_C",
)


@dataclass(frozen=True)
class Board:
    """What vLLM asks of a board before it builds a model."""

    name: str
    major: int
    minor: int
    total_memory: int
    multi_processor_count: int
    warp_size: int = 32
    is_integrated: bool = False
    shared_memory_per_block_optin: int = 232448
    L2_cache_size: int = 50 << 20


BOARDS = {
    "h100": Board("NVIDIA H100 80GB HBM3", 9, 0, 80 * GIB, 132),
    "a10g": Board("NVIDIA A10G", 8, 6, 24 * GIB, 80, shared_memory_per_block_optin=101376),
    "l40s": Board("NVIDIA L40S", 8, 9, 48 * GIB, 142, shared_memory_per_block_optin=101376),
    "b200": Board("NVIDIA B200", 10, 0, 180 * GIB, 148),
}


class Kernel:
    """A compiled operation that can be looked up and not called."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __getattr__(self, overload: str) -> Kernel:
        if overload.startswith("__"):
            raise AttributeError(overload)
        return self

    def __call__(self, *_args: object, **_more: object) -> None:
        raise RuntimeError(f"{self.name} has no body here")


class Nothing:
    """A stream or an event: it is made and passed on."""

    def __init__(self, *_args: object, **_more: object) -> None:
        self.cuda_stream = 0

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return lambda *_args, **_more: None

    def __enter__(self) -> Nothing:
        return self

    def __exit__(self, *_error: object) -> None:
        return None


class Anything(type):
    """A class in the place of each name of a package that is not there; image processors import it and are not used."""

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return Anything(name, (), {})

    def __call__(cls, *_args: object, **_more: object) -> Any:
        return cls

    def __or__(cls, other: object) -> Any:
        return other


class Absent(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds every module of such a package."""

    def __init__(self, package: str) -> None:
        self.package = package

    def find_spec(self, name: str, *_more: object) -> Any:
        if name.split(".")[0] == self.package:
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec: Any) -> Any:
        module = types.ModuleType(spec.name)
        module.__getattr__ = lambda name: getattr(Anything("absent", (), {}), name)  # type: ignore[method-assign]
        return module

    def exec_module(self, module: Any) -> None:
        pass


class Shapes(TorchFunctionMode):
    """What a model makes is a shape without memory, also where its code says that it shall lie on the board."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if isinstance(kwargs.get("device"), int) or "cuda" in str(kwargs.get("device")):
            kwargs["device"] = "meta"
        if func in (torch.Tensor.to, torch.Tensor.cuda):
            return args[0] if isinstance(args[0], torch.Tensor) and "cuda" in str(args[1:]) else func(*args, **kwargs)
        return func(*args, **kwargs)


def _modules() -> None:
    for name in COMPILED:
        module = types.ModuleType(f"vllm.{name}")
        module.__spec__ = importlib.machinery.ModuleSpec(module.__name__, None)
        sys.modules[module.__name__] = module


def _cuda(board: Board) -> None:
    cuda: Any = torch.cuda
    cuda.is_available = lambda: True
    cuda.device_count = lambda: 8
    cuda.current_device = lambda: 0
    cuda.get_device_capability = lambda *_: (board.major, board.minor)
    cuda.get_device_name = lambda *_: board.name
    cuda.get_device_properties = lambda *_: board
    for name in ("set_device", "synchronize", "empty_cache", "_lazy_init"):
        setattr(cuda, name, lambda *_: None)  # one each: torch's compiler wants no function under two names
    for name in ("Stream", "Event", "current_stream", "stream"):
        setattr(cuda, name, type(name, (Nothing,), {}))
    torch.version.cuda = "13.0"


def _kernels(board: Board) -> torch.library.Library:
    """What vLLM asks its compiled parts while it is imported, and a name for every other kernel."""
    here = (board.major, board.minor)
    answers = {
        "cutlass_scaled_mm_supports_fp8": here >= (8, 9),
        "cutlass_scaled_mm_supports_block_fp8": here >= (9, 0),
        "cutlass_scaled_mm_supports_fp4": here >= (10, 0),
        "cutlass_group_gemm_supported": (9, 0) <= here < (12, 0),
        "mxfp4_experts_quant_supported": here >= (10, 0),
    }
    library = torch.library.Library("_C", "FRAGMENT")
    for name, answer in answers.items():
        library.define(f"{name}(int capability) -> bool")
        library.impl(name, lambda _capability, answer=answer: answer, "CompositeImplicitAutograd")
    return library


def _name_every_kernel() -> None:
    import vllm._custom_ops  # noqa: F401  it asks which kernels there are: before there are all of them

    space: Any = torch._ops._OpNamespace
    found = space.__getattr__

    def kernel(self: Any, name: str) -> Any:
        try:
            return found(self, name)
        except AttributeError:
            if self.name.startswith(("_C", "_moe_C", "_flashkda_C")):
                return Kernel(name)
            raise

    space.__getattr__ = kernel


def _tuned(_sizes: object = None, num_stages: int = 3, num_warps: int = 4, **_more: object) -> types.SimpleNamespace:
    return types.SimpleNamespace(num_stages=num_stages, num_warps=num_warps, kwargs=_sizes)


def hide_torchvision() -> None:
    """Let code that can do without torchvision see that it is not there."""
    from transformers.utils import is_torchvision_available

    if not is_torchvision_available():  # it remembers what it found
        sys.meta_path.append(Absent("torchvision"))


def inspect_here() -> None:
    """Let vLLM look at a model's class in this process: another one would see no board, and costs seconds each."""
    from vllm.model_executor.models import registry

    registry._run_in_subprocess = lambda inspect: inspect()


def pretend(name: str) -> torch.library.Library:
    """Let everything of vLLM that is imported from now on see this board. Keep what is returned."""
    board = BOARDS[name]
    _modules()
    _cuda(board)
    library = _kernels(board)
    hide_torchvision()
    sys.meta_path.extend((Absent("cutlass"), Absent("cuda")))
    from vllm import platforms
    from vllm.platforms import cuda

    platforms._current_platform = cuda.NonNvmlCudaPlatform()
    import vllm.utils.import_utils

    vllm.utils.import_utils.has_deep_gemm = lambda: True  # the image brings it, the wheel does not
    import vllm.config.vllm
    from vllm import triton_utils

    triton_utils.triton.Config = _tuned  # what a kernel is tuned with is read, and never used
    vllm.config.vllm.HAS_TRITON = True  # or vLLM takes another model runner, which may count otherwise
    _name_every_kernel()
    inspect_here()
    return library
