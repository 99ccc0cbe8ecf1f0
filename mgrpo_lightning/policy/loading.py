"""Load a frozen base model (NF4 or unquantised) and its tokenizer.

The only place that knows that one process holds a whole base. Nothing here trains: adapters.py puts the adapters on.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from mgrpo_lightning.errors import ConfigurationError, MgrpoError
from mgrpo_lightning.policy.adapters import AdapterBank
from mgrpo_lightning.policy.cpu.dense import DenseCopy
from mgrpo_lightning.policy.foreign import refuse_code, refuse_pickles
from mgrpo_lightning.policy.forest_attention import attend_by_forest
from mgrpo_lightning.policy.head import check_head
from mgrpo_lightning.policy.passes import check_passes, clear_pass_error
from mgrpo_lightning.policy.quantised import refuse_unquantised
from mgrpo_lightning.policy.source import folder_of, source_of
from mgrpo_lightning.policy.supported import num_positions, refuse_unsupported
from mgrpo_lightning.policy.weights import weights_digest
from mgrpo_lightning.process.one_run import making_a_model

Quantization = Literal["nf4", "none"]


@dataclass
class Base:
    """A frozen base model shared by the policies of every role that names it."""

    name: str
    """As the team file says it: ``pocket``, a hub name or a folder."""
    model: PreTrainedModel
    """Frozen and in eval mode; adapters are injected into it in place."""
    tokenizer: PreTrainedTokenizerBase
    adapters: AdapterBank = field(init=False)
    """The adapters on this base, by role."""
    dense: DenseCopy | None = None
    """What is computed with instead of the model's own linear layers, if anything."""
    digest: str | None = None
    """Hash of its files, see ``weights_digest``; None where they are not known."""

    def __post_init__(self) -> None:
        self.adapters = AdapterBank(self.model, self.name)

    @property
    def device(self) -> torch.device:
        """Where the base lives."""
        return self.model.device

    @property
    def eos_ids(self) -> tuple[int, ...]:
        """Every id the model's generation settings call an end of sequence (Qwen and Llama 3 have several)."""
        ids = getattr(self.model.generation_config, "eos_token_id", None)
        if ids is None:
            return ()
        return tuple(ids) if isinstance(ids, list | tuple) else (int(ids),)


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
    """Load ``name`` onto one device, frozen.

    Args:
        name: ``pocket`` (the embedded model), a folder, or a hub name.
        quantization: ``nf4`` (bitsandbytes, double quantisation) or ``none``.
        compute_dtype: Type of activations and of every weight that is not 4-bit.
        device: The one device that gets the whole base.
        dense_copy: Keep a dense copy of the linear layers; see ``DenseCopy`` and ``Policy.updating``.
        context: Tokens of the longest row that will be sampled or trained on: the largest ``limits.context`` of its
            roles. None: as many as its config has positions for.

    Raises:
        ConfigurationError: There is no such model, it is an adapter, a pickle or needs code of its own, it cannot be
            loaded, its numbers depend on the pass that computes them, its logits or attention are made in an unknown
            way, or it is not in 4 bit although that was asked for; or a run is in another thread.
    """
    source = source_of(name)
    settings = load_config(name)
    context = num_positions(settings) if context is None else context
    refuse_unsupported(settings, name, context=context)
    config = None
    if quantization == "nf4":
        config = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=compute_dtype,
        )
    with clear_load_error(name):
        digest = weights_digest(folder_of(name))  # before it is loaded, which takes the files from memory then
        model = AutoModelForCausalLM.from_pretrained(
            source,
            quantization_config=config,
            dtype=compute_dtype,
            device_map={"": torch.device(device)},
            trust_remote_code=False,
            use_safetensors=True,
        )
    tokenizer = load_tokenizer(name)
    model.requires_grad_(False).eval()
    _keep_one_layout(model)
    with clear_pass_error(model, name):
        check_head(model, name)
        attend_by_forest(model, name)
        check_passes(model, name, context=context)
    if quantization == "nf4":
        refuse_unquantised(model, name)
        _let_go_of_the_file(model)
    dense = DenseCopy(model) if dense_copy else None
    return Base(name=name, model=model, tokenizer=tokenizer, dense=dense, digest=digest)


def load_config(name: str) -> PreTrainedConfig:
    """The config of a base, without its weights.

    Args:
        name: ``pocket``, a folder, or a hub name.

    Raises:
        ConfigurationError: There is none, it cannot be read, or it is an adapter, a pickle or needs code of its own.
    """
    source = source_of(name)
    with clear_load_error(name):
        refuse_code(source, name)
        refuse_pickles(source, name)
        config: PreTrainedConfig = AutoConfig.from_pretrained(source, trust_remote_code=False)
    return config


def load_tokenizer(name: str) -> PreTrainedTokenizerBase:
    """The tokenizer of a base, without its weights.

    Args:
        name: ``pocket``, a folder, or a hub name.

    Raises:
        ConfigurationError: There is none, or it cannot be loaded.
    """
    source = source_of(name)
    with clear_load_error(name):
        refuse_code(source, name)
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    return tokenizer


@contextmanager
def clear_load_error(name: str) -> Iterator[None]:
    """Name the base, and what a base may be, in whatever transformers raises while it loads a part of one.

    Args:
        name: As the team file says it.

    Raises:
        ConfigurationError: In place of transformers' error.
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
    """Stop bitsandbytes from repacking 4-bit weights in a no-grad pass on AVX512-BF16 CPUs.

    The packed layout has no input gradient and unpacking is lossy, so that one evaluation would silently ruin every
    later LoRA gradient (correctness.md 31).
    """
    for module in model.modules():
        if type(module).__name__ == "Linear4bit":
            vars(module)["support_avx512bf16_for_cpu"] = False


@torch.no_grad()
def _let_go_of_the_file(model: PreTrainedModel) -> None:
    """Copy what is not 4-bit: on a CPU it is part of the mapped file, all of which would stay in memory."""
    for parameter in model.parameters():
        if parameter.is_cpu and parameter.is_floating_point():
            parameter.data = parameter.data.clone()
