"""Products of linear layers on a CPU by oneDNN, where torch alone would ask another library.

In float32 torch multiplies with MKL, which on CPUs of another maker than its own leaves half of the machine idle
(docs/performance.md). And the few rows of a decoding step are multiplied with a plain weight at a small part of the
machine's speed: by MKL hardly faster on two cores than on one, and by oneDNN in bfloat16, which puts the weight in its
own order of numbers anew each time. With a weight that is in that order it is faster, and with many rows no slower.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

ROWS = 32
"""Rows that oneDNN chooses the order for; products of any other number take it too."""


def multiplies(dtype: torch.dtype) -> bool:
    """Whether this machine's oneDNN takes a type: float32, and bfloat16 on CPUs with AVX-512.

    Args:
        dtype: Of matrices on the CPU.
    """
    if not torch.backends.mkldnn.is_available():
        return False
    return dtype == torch.float32 or (dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported())


def product(input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """``linear(input, weight, bias)`` up to rounding, without gradients; where oneDNN is not to be had, that itself.

    Args:
        input: ... x inputs.
        weight: outputs x inputs, a plain one, which may be the view of a transposed one.
        bias: outputs, or None.
    """
    if weight.device.type != "cpu" or not multiplies(weight.dtype):
        return F.linear(input, weight, bias)
    return packed_product(input, weight, bias)


def packed(weight: Tensor) -> Tensor | None:
    """A copy of a weight for ``packed_product``, as large as it is; None where a plain product is all there is.

    Args:
        weight: outputs x inputs. Any that is not on the CPU or not of a type that ``multiplies`` gives None.
    """
    if weight.device.type != "cpu" or not multiplies(weight.dtype):
        return None
    copy = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), ROWS)
    assert isinstance(copy, Tensor)
    return copy


def packed_product(input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """``linear(input, weight, bias)`` up to rounding, without gradients.

    Args:
        input: ... x inputs.
        weight: outputs x inputs, from ``packed`` or a plain one that ``multiplies``.
        bias: outputs, or None.
    """
    found = torch.ops.mkldnn._linear_pointwise(input, weight, bias, "none", [], "")
    assert isinstance(found, Tensor)
    return found
