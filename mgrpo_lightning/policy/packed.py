"""Products on a CPU with a weight in oneDNN's own order of its numbers.

MKL multiplies the few rows of a decoding step with a plain weight at a small part of the machine's speed, and hardly
faster on two cores than on one; oneDNN with a weight in its order is faster, and with many rows no slower.
"""

from __future__ import annotations

import torch
from torch import Tensor

ROWS = 32
"""Rows that oneDNN chooses the order for; products of any other number take it too."""


def packed(weight: Tensor) -> Tensor | None:
    """A copy of a weight for ``packed_product``, as large as it is; None where a plain product is all there is.

    Args:
        weight: outputs x inputs. Any but float32 on a CPU whose torch has oneDNN gives None.
    """
    if weight.device.type != "cpu" or weight.dtype != torch.float32 or not torch.backends.mkldnn.is_available():
        return None
    copy = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), ROWS)
    assert isinstance(copy, Tensor)
    return copy


def packed_product(input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """``linear(input, weight, bias)`` up to rounding, without gradients.

    Args:
        input: ... x inputs.
        weight: From ``packed``.
        bias: outputs, or None.
    """
    product = torch.ops.mkldnn._linear_pointwise(input, weight, bias, "none", [], "")
    assert isinstance(product, Tensor)
    return product
