"""Find numbers that are not finite before anything is computed with them."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from mgrpo_lightning.errors import DataError


def first_nonfinite(tensors: Mapping[str, Tensor]) -> str | None:
    """The name of the first tensor, by name, that holds NaN or an infinity; None if all are finite.

    Args:
        tensors: By name; of any type and on any device.
    """
    names = sorted(tensors)
    if not names:
        return None
    device = tensors[names[0]].device
    # One copy to the host for all tensors: each would wait for the GPU on its own.
    finite = torch.stack([tensors[name].isfinite().all().to(device) for name in names]).tolist()
    return next((name for name, good in zip(names, finite, strict=True) if not good), None)


def refuse_nonfinite(tensors: Mapping[str, Tensor], *, source: str, hint: str) -> None:
    """Refuse a file with a number that is not finite.

    Args:
        tensors: What it holds, by name.
        source: What the error calls it.
        hint: What to do instead.

    Raises:
        DataError: One tensor holds NaN or an infinity; it is named.
    """
    if (name := first_nonfinite(tensors)) is not None:
        raise DataError(f"{source}: {name} holds numbers that are not finite.", hint=hint)
