"""Find NaN and infinity in named tensors, and refuse them: start adapters, checkpoints, values after a step."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from mgrpo_lightning.errors import DataError


def first_nonfinite(tensors: Mapping[str, Tensor]) -> str | None:
    """The name of the first tensor (in alphabetical order) that holds NaN or an infinity; None if all are finite.

    Args:
        tensors: Tensors by name, of any type and on any device.
    """
    names = sorted(tensors)
    if not names:
        return None
    device = tensors[names[0]].device
    # Copy all results to the host at once: one copy per tensor would wait for the GPU each time.
    finite = torch.stack([tensors[name].isfinite().all().to(device) for name in names]).tolist()
    return next((name for name, good in zip(names, finite, strict=True) if not good), None)


def refuse_nonfinite(tensors: Mapping[str, Tensor], *, source: str, hint: str) -> None:
    """Refuse tensors with NaN or infinity.

    Args:
        tensors: The content of a file, by name.
        source: Name of the file in the error message.
        hint: Advice in the error message.

    Raises:
        DataError: A tensor holds NaN or an infinity. The message names the tensor.
    """
    if (name := first_nonfinite(tensors)) is not None:
        raise DataError(f"{source}: {name} contains NaN or infinite values.", hint=hint)
