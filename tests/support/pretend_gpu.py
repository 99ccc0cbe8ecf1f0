"""A device that computes on the CPU and is as strict as a GPU, so that its mistakes show where there is none.

    python -m tests.support.pretend_gpu fit --config ...        # as `mgrpo`, on that device

Its tensors refuse to meet those of the CPU (but for numbers, and where CUDA copies) and the CPU's random generators.
bitsandbytes knows no such device, so it is for ``quantization: none``.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.utils import backend_registration
from torch.utils._device import _device_constructors
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map

NAME = "pretended"
_COPIES = (torch.ops.aten.copy_.default, torch.ops.aten._to_copy.default)
_INDEXES = (torch.ops.aten.index.Tensor, torch.ops.aten.index_put_.default, torch.ops.aten._index_put_impl_.default)
"""CUDA takes indices of the CPU."""


class _Backend(backend_registration._DummyBackendModule):
    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16, torch.float16]

    def device_count(self) -> int:
        return 1

    def current_device(self) -> int:
        return 0

    def is_available(self) -> bool:
        return True

    def is_initialized(self) -> bool:
        return True


class Pretended(torch.Tensor):
    """A tensor on the device; ``numbers`` has what stands in it."""

    numbers: torch.Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @staticmethod
    def __new__(cls: type[Pretended], numbers: torch.Tensor) -> Pretended:
        made: Pretended = torch.Tensor._make_wrapper_subclass(
            cls,
            numbers.size(),
            strides=numbers.stride(),
            storage_offset=numbers.storage_offset(),
            dtype=numbers.dtype,
            device=torch.device(NAME, 0),
        )
        return made

    def __init__(self, numbers: torch.Tensor) -> None:
        self.numbers = numbers

    def tolist(self) -> Any:
        return self.numbers.tolist()

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        return _run(func, args, kwargs or {})


class PretendGpu(TorchDispatchMode):
    """Inside of it tensors can be made on the device."""

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        return _run(func, args, kwargs or {})


def _run(func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    leaves = tree_leaves((args, kwargs))
    tensors = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]
    here = any(isinstance(tensor, Pretended) for tensor in tensors)
    if here:
        _refuse_what_cuda_refuses(func, args, leaves, tensors)
    target = kwargs.get("device")
    stays = here if target is None else torch.device(target).type == NAME
    settings = {name: value for name, value in kwargs.items() if name != "pin_memory"}
    if target is not None:
        settings["device"] = torch.device("cpu")
    inner_args, inner_kwargs = tree_map(_inner, (tuple(args), settings))
    out = func(*inner_args, **inner_kwargs)
    if func is torch.ops.aten._to_copy.default and out is inner_args[0]:
        out = out.clone()
    if func is torch.ops.aten.copy_.default:
        return args[0]
    if not stays:
        return out
    out = tree_map(lambda one: Pretended(one) if isinstance(one, torch.Tensor) else one, out)
    return return_and_correct_aliasing(func, tuple(args), dict(kwargs), out) if here else out


def _inner(leaf: Any) -> Any:
    return leaf.numbers if isinstance(leaf, Pretended) else leaf


def _refuse_what_cuda_refuses(
    func: Callable[..., Any], args: Sequence[Any], leaves: Sequence[Any], tensors: Sequence[torch.Tensor]
) -> None:
    if any(isinstance(leaf, torch.Generator) for leaf in leaves):
        raise RuntimeError(f"{func}: expected a generator of the device, but found one of the CPU")
    if func in _INDEXES:
        tensors = [one for one in (args[0], *args[2:3]) if isinstance(one, torch.Tensor)]
    if func not in _COPIES and any(not isinstance(one, Pretended) and one.dim() for one in tensors):
        raise RuntimeError(
            f"{func}: tensors on several devices, {[(type(one).__name__, one.shape) for one in tensors]}"
        )


def register() -> None:
    """Make the device known; once in a process, and for good."""
    backend_registration._setup_privateuseone_for_python_backend(rename=NAME, backend_module=_Backend())
    torch._C._set_only_lift_cpu_tensors(True)


def main(args: Sequence[str]) -> None:
    """The command ``mgrpo`` with its computations on the device.

    Args:
        args: Behind ``mgrpo``.
    """
    os.environ["HF_DEACTIVATE_ASYNC_LOAD"] = "1"  # in its threads there would be no such device
    from lightning.pytorch.accelerators import CPUAccelerator
    from lightning.pytorch.strategies import SingleDeviceStrategy

    from mgrpo_lightning.commands.fit import make_cli

    register()
    _device_constructors().discard(torch.asarray)  # of numbers from files, which stay where they are
    CPUAccelerator.setup_device = lambda self, device: None  # type: ignore[method-assign]
    SingleDeviceStrategy.root_device = property(lambda self: torch.device(NAME, 0))  # type: ignore[assignment]
    with PretendGpu():  # type: ignore[no-untyped-call]
        make_cli(args)


if __name__ == "__main__":
    main(sys.argv[1:])
