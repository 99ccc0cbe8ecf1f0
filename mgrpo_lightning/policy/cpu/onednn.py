"""Matrix products of linear layers on a CPU with oneDNN, on plain or packed weights; faster than torch's MKL.

In float32 torch uses MKL, which is slower than oneDNN on CPUs that are not from Intel.
The few rows of a decoding step are slow with a plain weight: MKL is hardly faster on two cores than on one, and oneDNN
in bfloat16 converts the weight to its own memory layout in every call. A packed weight is already in that layout: it is
faster for few rows and no slower for many.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

ROWS = 32
"""Number of input rows for which oneDNN chooses the layout of a packed weight. Other numbers of rows work too."""


def multiplies(dtype: torch.dtype) -> bool:
    """Whether oneDNN on this machine multiplies CPU matrices of this type: float32, and bfloat16 with AVX-512."""
    if not torch.backends.mkldnn.is_available():
        return False
    return dtype == torch.float32 or (dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported())


def product(input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """``linear(input, weight, bias)`` up to rounding, without gradients. Uses oneDNN if it supports the weight.

    Args:
        input: ... x inputs.
        weight: outputs x inputs, not packed; may be a transposed view.
        bias: Bias of size outputs, or None.
    """
    if weight.device.type != "cpu" or not multiplies(weight.dtype):
        return F.linear(input, weight, bias)
    return packed_product(input, weight, bias)


def packed(weight: Tensor) -> Tensor | None:
    """A copy of a weight (outputs x inputs) in oneDNN's layout, of the same size, for ``packed_product``.

    None if the weight is not on the CPU or has a type that oneDNN does not support.
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
        weight: outputs x inputs, from ``packed``, or a plain CPU weight of a type that ``multiplies`` accepts.
        bias: Bias of size outputs, or None.
    """
    # "none": no fused activation. This op takes packed and plain weights alike and has no gradient.
    found = torch.ops.mkldnn._linear_pointwise(input, weight, bias, "none", [], "")
    assert isinstance(found, Tensor)
    return found
