"""AdapterBank: LoRA adapters on one base: add, initialise, select and load them; refuse wrong target layers.

peft's ``set_adapter`` sets ``requires_grad`` to False on every other adapter, and a later backward pass, checkpoint or
reduction then silently skips them (correctness.md 33). Here each adapter keeps its ``requires_grad`` for the whole run;
to select an adapter only changes which matrices the LoRA layers add.

peft and torch also find an adapter's parameters by searching parameter names for the adapter's name. A role named like
a part of the model would get wrong parameters. So they know each adapter under a key that no module can have, and this
file finds the parameters through the LoRA layers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import peft
import torch
from peft import LoraConfig, PeftModel, get_peft_model, set_peft_model_state_dict
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel
from typing_extensions import override

from mgrpo_lightning.errors import ConfigurationError, DataError
from mgrpo_lightning.policy.sampling.random import stream_of
from mgrpo_lightning.roles.config import AdapterConfig

PEFT_PREFIX = "base_model.model."


class _Matrix(nn.Linear):
    """Matrix A or B of an adapter. It multiplies in the type of its input.

    peft would convert the input of each layer to float32 instead. In a base that computes in bfloat16, the adapter's
    two narrow products would then take longer than the layer itself. The matrix and its gradient stay in float32.
    Sampling uses the matrix thousands of times between two updates, so without gradients a copy in the input's type is
    cached until the matrix changes.
    """

    def __init__(self, weight: nn.Parameter) -> None:
        super().__init__(weight.shape[1], weight.shape[0], bias=False, device="meta")
        self.weight: nn.Parameter = weight
        self._copy: Tensor | None = None
        self._copied = -1

    @override
    def forward(self, input: Tensor) -> Tensor:
        """Multiply ... x inputs; returns ... x outputs."""
        return F.linear(input, self._in_type_of(input))

    def _in_type_of(self, input: Tensor) -> Tensor:
        weight = self.weight
        if torch.is_grad_enabled() or input.dtype == weight.dtype:
            return weight.to(input.dtype)
        copy = self._copy
        # torch counts every in-place write to a tensor in `_version`, so the count shows that the copy is stale.
        if copy is None or self._copied != weight._version or (copy.dtype, copy.device) != (input.dtype, weight.device):
            self._copy, self._copied = (copy := weight.to(input.dtype)), weight._version
        return copy


class AdapterBank:
    """All adapters on one base model.

    Args:
        model: The frozen base. The first ``add`` injects LoRA layers into it in place.
        base_name: The base's name, for error messages.
    """

    def __init__(self, model: PreTrainedModel, base_name: str) -> None:
        self.model = model
        self.peft: PeftModel | None = None
        self._keys: dict[str, str] = {}
        """peft's key of each adapter, by the adapter's name."""
        self._base_name = base_name
        self._layers: dict[str, LoraLayer] = {}
        """The LoRA layers, by their path in the model."""

    def add(self, name: str, config: AdapterConfig, *, trainable: bool) -> None:
        """Add an adapter with B = 0, so that the base's output does not change. The caller must still initialise A.

        Raises:
            ConfigurationError: The name is taken, a target is not a linear layer of the base, or peft would lose some
                of the adapter's layers when it loads an export.
        """
        if name in self._keys:
            raise ConfigurationError(f"the adapter {name!r} exists already.", hint="rename the role.")
        self._check_targets(config.target_modules)
        lora = lora_config(config)
        key = self._keys[name] = f"adapter:{len(self._keys)}"
        trained = {id(parameter): parameter.requires_grad for parameter in self.model.parameters()}
        # peft draws A from the global generator. fork_rng restores the generator, so that other random numbers of the
        # run do not depend on the number of adapters. The caller overwrites A.
        device = self.model.device
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            if self.peft is None:
                self.peft = get_peft_model(self.model, lora, adapter_name=key)
            else:
                self.peft.add_adapter(key, lora)
        self._layers = {path: m for path, m in self.model.named_modules() if isinstance(m, LoraLayer)}
        for layer in self._layers.values():
            # `_Matrix` handles the types itself.
            layer.cast_input_dtype_enabled = False
            for matrices in (layer.lora_A, layer.lora_B):
                if key in matrices:
                    weight = matrices[key].weight
                    assert isinstance(weight, nn.Parameter)
                    matrices[key] = _Matrix(weight)
        for parameter in self.model.parameters():  # peft froze the other adapters when it added this one
            parameter.requires_grad_(trained.get(id(parameter), trainable))
        self.model.eval()
        self._refuse_lost_layers(name)

    def _refuse_lost_layers(self, name: str) -> None:
        """Refuse targets that peft renames when it loads an adapter: it would skip those layers without an error."""
        state, key = peft_state(self.parameters(name)), self.key(name)
        assert self.peft is not None
        loaded: Any = set_peft_model_state_dict(self.peft, state, adapter_name=key)
        missing = (path.removeprefix(PEFT_PREFIX) for path in loaded.missing_keys if f".{key}." in path)
        paths = {path.partition(".lora_")[0] for path in missing}
        if paths:
            lost = sorted({path.rpartition(".")[2] for path in paths})
            raise ConfigurationError(
                f"base_model {self._base_name!r} ({type(self.model).__name__}): peft {peft.__version__} cannot load "
                f"the adapter of layer {min(paths)} from an exported folder, nor of {len(paths) - 1} other layers.",
                hint=f"leave {lost} out of `adapter.target_modules`.",
            )

    def _check_targets(self, targets: list[str]) -> None:
        linear = dict(_linear_layers(self.model))
        head = self.model.get_output_embeddings()
        heads = {path for path, module in linear.items() if module is head}
        for target in targets:
            found = {path for path in linear if path == target or path.endswith(f".{target}")}
            if not found or found & heads:
                names = sorted({path.rsplit(".", 1)[-1] for path in linear.keys() - heads})
                raise ConfigurationError(
                    f"adapter target_modules names {target!r}, "
                    + ("the LM head, which stays frozen." if found else "which is not a linear layer of the base."),
                    hint=f"use its linear layers: {names}.",
                )

    def key(self, name: str) -> str:
        """The key under which peft's LoRA layers know the adapter ``name``."""
        return self._keys[name]

    @contextmanager
    def select(self, name: str) -> Iterator[None]:
        """Select the adapter ``name`` for the forward passes in the block.

        With gradient checkpointing the backward pass must run inside the block too, because it recomputes the forward
        pass.
        """
        # Set the attribute directly: peft's own set_adapter would also change requires_grad.
        layers = list(self._layers.values())
        previous = [layer._active_adapter for layer in layers]
        for layer in layers:
            layer._active_adapter = [self.key(name)]
        try:
            yield
        finally:
            for layer, active in zip(layers, previous, strict=True):
                layer._active_adapter = active

    def parameters(self, name: str) -> dict[str, nn.Parameter]:
        """The adapter's parameters, sorted by name; empty for an unknown adapter.

        The parameter names do not contain the adapter's name, so the state of one adapter fits another one.
        """
        if (key := self._keys.get(name)) is None:
            return {}
        found = {
            f"{path}.{kind}.weight": matrices[key]
            for path, layer in self._layers.items()
            for kind, matrices in (("lora_A", layer.lora_A), ("lora_B", layer.lora_B))
            if key in matrices
        }
        return {path: matrix.weight for path, matrix in sorted(found.items()) if isinstance(matrix, _Matrix)}

    def load(self, name: str, state: Mapping[str, Tensor], *, source: str) -> None:
        """Copy a state into the adapter. Names and shapes must match exactly.

        Raises:
            DataError: A name is missing or unexpected, or a shape differs.
        """
        parameters = self.parameters(name)
        missing, unexpected = sorted(parameters.keys() - state.keys()), sorted(state.keys() - parameters.keys())
        wrong = [
            f"{key} is {tuple(state[key].shape)}, not {tuple(parameters[key].shape)}"
            for key in parameters.keys() & state.keys()
            if state[key].shape != parameters[key].shape
        ]
        if missing or unexpected or wrong:
            raise DataError(
                f"{source} is not a state of adapter {name!r}: missing {missing[:3]}, unexpected {unexpected[:3]}, "
                f"wrong shapes {sorted(wrong)[:3]} ({len(missing)}, {len(unexpected)}, {len(wrong)} in all).",
                hint="load a checkpoint of the same team: same base, rank and target_modules.",
            )
        with torch.no_grad():
            for key, parameter in parameters.items():
                parameter.copy_(state[key])


def lora_config(config: AdapterConfig, **more: Any) -> LoraConfig:
    """PEFT's description of an adapter.

    Args:
        config: Rank, alpha and targets.
        **more: More fields of PEFT's description.
    """
    return LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,
        target_modules=list(config.target_modules),
        lora_dropout=config.dropout,
        bias="none",
        task_type="CAUSAL_LM",
        **more,
    )


def peft_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """An adapter's state under the names that PEFT folders use."""
    return {PEFT_PREFIX + path: value.detach() for path, value in state.items()}


def _linear_layers(module: nn.Module, path: str = "") -> Iterator[tuple[str, nn.Module]]:
    """Linear layers with their paths. A LoRA layer counts as one; the layers inside it are not layers of the base."""
    if isinstance(module, nn.Linear | LoraLayer):
        yield path, module
        return
    for name, child in module.named_children():
        yield from _linear_layers(child, f"{path}.{name}" if path else name)


def initial_state(parameters: Mapping[str, nn.Parameter], *, seed: int, role: str) -> dict[str, Tensor]:
    """Initial values of a new adapter: A uniform in +-1/sqrt(inputs) (peft's default), B zero.

    Each matrix has its own random generator. So the values depend only on seed, role and parameter name, and not on the
    other roles, their order, the device, or the global generator.
    """
    state = {}
    for name, parameter in parameters.items():
        # Lightning sets the run's device as default device. This CPU generator cannot draw on a GPU, so name the CPU.
        value = torch.zeros(parameter.shape, dtype=torch.float32, device="cpu")
        if name.endswith(".lora_A.weight"):
            bound = 1 / math.sqrt(parameter.shape[1])
            generator = torch.Generator().manual_seed(stream_of("adapter", seed, role, name))
            value.uniform_(-bound, bound, generator=generator)
        state[name] = value
    return state
