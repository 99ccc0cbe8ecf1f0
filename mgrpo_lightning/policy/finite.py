"""Find numbers that are not finite before anything is computed with them."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from mgrpo_lightning.errors import DataError


def first_nonfinite(tensors: Mapping[str, Tensor]) -> str | None:
    """The name of the first tensor, by name, that holds NaN or an infinity; None if all are finite.

    Args:
        tensors: By name; of any type and on any device.
    """
    return next((name for name, tensor in sorted(tensors.items()) if not bool(tensor.isfinite().all())), None)


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
