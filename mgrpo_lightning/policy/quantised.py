"""Measure the share of a base's weights that is not 4-bit; refuse a base that NF4 leaves at 16 bit (fused experts).

bitsandbytes quantises only ``nn.Linear``. Weights in other modules, such as the fused 3-D experts of Qwen3-MoE, stay at
16 bit without a warning. A "4-bit" 30B model then takes 60 GB.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor
from transformers import PreTrainedModel

from mgrpo_lightning.errors import ConfigurationError

LARGEST_SHARE = 0.05
"""Largest allowed share of the inner weights' bytes that is not 4-bit (routers, for instance)."""


def unquantised(model: PreTrainedModel) -> tuple[float, dict[str, int]]:
    """The share of the inner weights' bytes that is not 4-bit, and the size of each such weight in bytes.

    Inner weights are the matrices between embedding and LM head. Embedding and head stay at full width in every NF4
    model. Norms and biases are not matrices, and adapters do not belong to the base.
    """
    large = {name: parameter.nbytes for name, parameter in _inner(model) if not _is_4bit(parameter)}
    total = sum(parameter.nbytes for _, parameter in _inner(model))
    return sum(large.values()) / max(1, total), large


def refuse_unquantised(model: PreTrainedModel, name: str) -> None:
    """Require that a base loaded with NF4 is in 4 bit.

    Args:
        model: The base, without adapters.
        name: The base's name in the team file, for the error message.

    Raises:
        ConfigurationError: More than 5% of the inner weights' bytes are not 4-bit. The message names the largest.
    """
    share, large = unquantised(model)
    if share > LARGEST_SHARE:
        first = sorted(large, key=lambda weight: -large[weight])[:4]
        raise ConfigurationError(
            f"base_model {name!r}: {share:.0%} of the bytes of its inner weights are not 4-bit, "
            f"{sum(large.values()) / 2**20:,.1f} MiB in {len(large)} weights such as {', '.join(first)}.",
            hint="set `quantization: none` if the memory allows it, or use a model without fused experts.",
        )


def _inner(model: PreTrainedModel) -> Iterator[tuple[str, Tensor]]:
    # By identity, not by name: with tied embeddings both modules hold the same parameter.
    outer = [model.get_input_embeddings(), model.get_output_embeddings()]
    skipped = {id(parameter) for module in outer if module is not None for parameter in module.parameters()}
    for name, parameter in model.named_parameters():
        if parameter.ndim >= 2 and id(parameter) not in skipped and ".lora_" not in name:
            yield name, parameter


def _is_4bit(parameter: Tensor) -> bool:
    return type(parameter).__name__ == "Params4bit"
