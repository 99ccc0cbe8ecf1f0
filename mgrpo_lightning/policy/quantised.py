"""How much of a base is in 4 bit, and the refusal of one that is not although NF4 was asked for.

bitsandbytes quantises ``nn.Linear`` only. What an architecture keeps elsewhere, such as the fused 3-D experts of
Qwen3-MoE, stays at 16 bit without a word: a "4-bit" 30B model then takes 60 GB.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor
from transformers import PreTrainedModel

from mgrpo_lightning.errors import ConfigurationError

LARGEST_SHARE = 0.05
"""Of the bytes of a base's inner weights: what may be left of them at full width (routers, for instance)."""


def unquantised(model: PreTrainedModel) -> tuple[float, dict[str, int]]:
    """The share of the inner weights' bytes that is not 4-bit, and the bytes of each such weight.

    Inner weights are the matrices between embedding and head. Those two stay at full width in every NF4 model, norms
    and biases are no matrices, and adapters are not the base's.
    """
    large = {name: parameter.nbytes for name, parameter in _inner(model) if not _is_4bit(parameter)}
    total = sum(parameter.nbytes for _, parameter in _inner(model))
    return sum(large.values()) / max(1, total), large


def refuse_unquantised(model: PreTrainedModel, name: str) -> None:
    """Make sure that a base loaded with NF4 is in 4 bit.

    Args:
        model: The base, without adapters.
        name: As the team file says it.

    Raises:
        ConfigurationError: More than 5% of the inner weights' bytes are not; the largest are named.
    """
    share, large = unquantised(model)
    if share > LARGEST_SHARE:
        first = sorted(large, key=lambda weight: -large[weight])[:4]
        raise ConfigurationError(
            f"base_model {name!r}: {share:.0%} of the bytes of its inner weights are not in 4 bit, "
            f"{sum(large.values()) / 2**20:,.1f} MiB in {len(large)} weights such as {', '.join(first)}.",
            hint="set `quantization: none` and give it the memory, or take a model without fused experts.",
        )


def _inner(model: PreTrainedModel) -> Iterator[tuple[str, Tensor]]:
    outer = [model.get_input_embeddings(), model.get_output_embeddings()]
    skipped = {id(parameter) for module in outer if module is not None for parameter in module.parameters()}
    for name, parameter in model.named_parameters():
        if parameter.ndim >= 2 and id(parameter) not in skipped and ".lora_" not in name:
            yield name, parameter


def _is_4bit(parameter: Tensor) -> bool:
    return type(parameter).__name__ == "Params4bit"
