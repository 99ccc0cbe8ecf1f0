"""Load a frozen base (NF4 or unquantised), its config and its tokenizer onto one device; run the checks of a base.

Only this file relies on the fact that one process holds a whole base. ``adapters.py`` adds the trainable adapters.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    GenerationConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from mgrpo_lightning.errors import ConfigurationError, MgrpoError
from mgrpo_lightning.policy.adapters import AdapterBank
from mgrpo_lightning.policy.base_files import folder_of, source_of
from mgrpo_lightning.policy.consistency import check_passes, clear_pass_error
from mgrpo_lightning.policy.cpu.dense import DenseCopy
from mgrpo_lightning.policy.lm_head import check_lm_head
from mgrpo_lightning.policy.quantised import refuse_unquantised
from mgrpo_lightning.policy.remote_code import refuse_code, refuse_pickles
from mgrpo_lightning.policy.supported import num_positions, refuse_unsupported
from mgrpo_lightning.policy.tree_attention import attend_by_prefix_tree
from mgrpo_lightning.policy.weights_hash import weights_digest
from mgrpo_lightning.process.one_run import making_a_model

Quantization = Literal["nf4", "none"]


@dataclass
class Base:
    """A frozen base model. All roles that name the same base share it."""

    name: str
    """The name in the team file: ``pocket``, a hub name or a folder."""
    model: PreTrainedModel
    """The model, frozen and in eval mode. Adapters are injected into it in place."""
    tokenizer: PreTrainedTokenizerBase
    adapters: AdapterBank = field(init=False)
    """The adapters on this base, by role."""
    dense: DenseCopy | None = None
    """Unquantised copy of the linear layers that replaces them in some passes; None: no copy."""
    digest: str | None = None
    """Hash of the base's files (see ``weights_digest``); None if the files were not found."""

    def __post_init__(self) -> None:
        self.adapters = AdapterBank(self.model, self.name)

    @property
    def device(self) -> torch.device:
        """The device of the base."""
        return self.model.device

    @property
    def eos_ids(self) -> tuple[int, ...]:
        """All end-of-sequence ids in the model's generation settings (Qwen and Llama 3 have several)."""
        return _eos_ids(self.model.generation_config)


@making_a_model()
def load_base(
    name: str,
    *,
    quantization: Quantization,
    compute_dtype: torch.dtype,
    device: torch.device | str = "cpu",
    dense_copy: bool = False,
    context: int | None = None,
) -> Base:
    """Load a base onto one device, freeze it, and check that sampler and trainer will compute the same with it.

    Args:
        name: ``pocket`` (the embedded model), a folder, or a hub name.
        quantization: ``nf4`` (bitsandbytes, double quantisation) or ``none``.
        compute_dtype: Type of activations and of every weight that is not 4-bit.
        device: The device that gets the whole base.
        dense_copy: Whether to keep a dense copy of the linear layers; see ``DenseCopy`` and ``Policy.updating``.
        context: Length in tokens of the longest row to sample or train on: the largest ``limits.context`` of its roles.
            None: the number of positions in the base's config.

    Raises:
        ConfigurationError: The model does not exist or cannot be loaded; it is an adapter, has pickled weights only,
            or needs its own code; its hidden states depend on how rows are cut into passes; it computes logits or
            attention in an unknown way; NF4 leaves too much of it unquantised; or a run is active in another thread.
    """
    source = source_of(name)
    # Refuse what the config shows first, before gigabytes of weights are downloaded.
    settings = load_config(name)
    context = num_positions(settings) if context is None else context
    refuse_unsupported(settings, name, context=context)
    config = None
    if quantization == "nf4":
        config = BitsAndBytesConfig(**nf4_settings(str(compute_dtype).removeprefix("torch.")))
    with clear_load_error(name):
        # Hash first: it reads the whole files, and loading then finds them in the page cache.
        digest = weights_digest(folder_of(name))
        model = AutoModelForCausalLM.from_pretrained(
            source,
            quantization_config=config,
            dtype=compute_dtype,
            # "" is the root module: the whole base goes to one device.
            device_map={"": torch.device(device)},
            trust_remote_code=False,
            use_safetensors=True,
        )
    tokenizer = load_tokenizer(name)
    model.requires_grad_(False).eval()
    _keep_one_layout(model)
    with clear_pass_error(model, name):
        check_lm_head(model, name)
        # check_passes must run with the attention implementation that attend_by_prefix_tree chooses.
        attend_by_prefix_tree(model, name)
        check_passes(model, name, context=context)
    if quantization == "nf4":
        refuse_unquantised(model, name)
        _let_go_of_the_file(model)
    dense = DenseCopy(model) if dense_copy else None
    return Base(name=name, model=model, tokenizer=tokenizer, dense=dense, digest=digest)


def nf4_settings(compute_dtype: str) -> dict[str, Any]:
    """The arguments of ``BitsAndBytesConfig`` with which NF4 bases are loaded, as JSON.

    Args:
        compute_dtype: Name of the type of activations, such as ``float32``.
    """
    return {
        "load_in_4bit": True,
        "bnb_4bit_quant_type": "nf4",
        "bnb_4bit_use_double_quant": True,
        "bnb_4bit_compute_dtype": compute_dtype,
    }


def load_config(name: str) -> PreTrainedConfig:
    """Read the config of a base, without its weights.

    Args:
        name: ``pocket``, a folder, or a hub name.

    Raises:
        ConfigurationError: There is no config or it cannot be read; or the model is an adapter, has pickled weights
            only, or needs its own code.
    """
    source = source_of(name)
    with clear_load_error(name):
        refuse_code(source, name)
        refuse_pickles(source, name)
        config: PreTrainedConfig = AutoConfig.from_pretrained(source, trust_remote_code=False)
    return config


def load_tokenizer(name: str) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a base, without the base's weights.

    Args:
        name: ``pocket``, a folder, or a hub name.

    Raises:
        ConfigurationError: There is no tokenizer, it cannot be loaded, or it needs its own code.
    """
    source = source_of(name)
    with clear_load_error(name):
        refuse_code(source, name)
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    return tokenizer


def load_eos_ids(name: str) -> tuple[int, ...]:
    """Read all end-of-sequence ids of a base, without its weights: those that ``Base.eos_ids`` has.

    Args:
        name: ``pocket``, a folder, or a hub name.

    Raises:
        ConfigurationError: The model does not exist or needs its own code.
    """
    config = load_config(name)
    try:
        generation = GenerationConfig.from_pretrained(source_of(name), trust_remote_code=False)
    except OSError:  # there is no generation_config.json
        generation = GenerationConfig.from_model_config(config)
    return _eos_ids(generation)


def _eos_ids(generation: GenerationConfig | None) -> tuple[int, ...]:
    ids = getattr(generation, "eos_token_id", None)
    if ids is None:
        return ()
    return tuple(ids) if isinstance(ids, list | tuple) else (int(ids),)


@contextmanager
def clear_load_error(name: str) -> Iterator[None]:
    """Turn a loading error of transformers into a ConfigurationError that names the base.

    Args:
        name: The base's name in the team file.

    Raises:
        ConfigurationError: transformers raised an error in the block.
    """
    try:
        yield
    except MgrpoError:
        raise
    except (OSError, ValueError, ImportError) as error:
        raise ConfigurationError(
            f"base_model {name!r} cannot be loaded: {str(error).strip().splitlines()[0]}",
            hint="give `pocket`, a folder with config.json, weights and tokenizer, or a reachable hub name.",
        ) from error


def _keep_one_layout(model: PreTrainedModel) -> None:
    """Stop bitsandbytes from repacking 4-bit weights in a no-grad pass on CPUs with AVX512-BF16.

    The packed layout gives no input gradient, and unpacking loses precision. So a single evaluation would silently
    corrupt all later LoRA gradients (correctness.md 31).
    """
    for module in model.modules():
        if type(module).__name__ == "Linear4bit":
            vars(module)["support_avx512bf16_for_cpu"] = False


@torch.no_grad()
def _let_go_of_the_file(model: PreTrainedModel) -> None:
    """Copy the weights that are not 4-bit. On a CPU they are views of the mapped file and keep all of it in memory."""
    for parameter in model.parameters():
        if parameter.is_cpu and parameter.is_floating_point():
            parameter.data = parameter.data.clone()
