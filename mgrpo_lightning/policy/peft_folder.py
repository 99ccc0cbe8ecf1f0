"""Read a PEFT folder as an adapter's start values; refuse what is not plain LoRA, and other rank, alpha or targets.

This package computes plain LoRA only. The folder's ``adapter_config.json`` may differ from PEFT's defaults in two ways:
in rank, alpha and targets, which must equal the team file, and in fields that do not affect a loaded adapter
(``HARMLESS``). Any other difference is an error that names the field.
"""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from reprlib import repr as shortened
from typing import Any

from peft import LoraConfig
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from mgrpo_lightning.errors import ConfigurationError, DataError
from mgrpo_lightning.policy.adapters import PEFT_PREFIX
from mgrpo_lightning.policy.finite import refuse_nonfinite
from mgrpo_lightning.roles.config import AdapterConfig

DESCRIPTION_NAME = "adapter_config.json"
WEIGHTS_NAME = "adapter_model.safetensors"
HARMLESS = {
    "base_model_name_or_path": "names the base; the team file decides which one is loaded",
    "revision": "of the repository that the folder came from",
    "auto_mapping": "names a class for PEFT to load the base with",
    "peft_version": "who wrote the folder",
    "inference_mode": "decides whether PEFT freezes the weights",
    "lora_dropout": "has no effect where nothing is trained, and training is refused with dropout",
    "loftq_config": "read with init_lora_weights loftq only",
    "eva_config": "read when an adapter is first made only, which leaves the base as it is",
    "corda_config": "read with init_lora_weights corda only",
    "lora_ga_config": "read with init_lora_weights lora_ga only",
    "megatron_core": "read with a megatron_config only",
    "qalora_group_size": "read with use_qalora only",
    "runtime_config": "PEFT does not read it from a folder",
}
"""Fields that do not change what a loaded adapter computes, each with the reason."""
ALLOWED: dict[str, tuple[object, ...]] = {
    "peft_type": ("LORA",),
    "task_type": (None, "CAUSAL_LM"),
    # These only initialise A and B, which the folder's weights replace. Other values also change the base's weights.
    "init_lora_weights": (True, False, "gaussian", "orthogonal", "eva"),
}
"""Fields with a list of values that still mean plain LoRA."""
_UNUSED = ("null", "false", "[]", "{}")
"""Allowed values, as JSON, of fields that this version of peft does not know: they mean that the feature is off."""
_COMPARED = ("r", "lora_alpha", "target_modules")


def read_peft_folder(config: AdapterConfig, *, role: str) -> dict[str, Tensor]:
    """Read the adapter in ``config.path`` and return its tensors under this package's parameter names.

    The path ``pocket`` means the warm-started adapter of this role that comes with the embedded model.

    Raises:
        ConfigurationError: The folder is not a PEFT folder; or its rank, alpha or targets differ from the team file;
            or it is not plain LoRA.
        DataError: The weights cannot be read, or one is not finite.
    """
    assert config.path is not None
    folder = Path(config.path)
    if config.path == "pocket":
        folder = Path(str(files("mgrpo_lightning.pocket"))) / "adapters" / role
    weights, description = folder / WEIGHTS_NAME, folder / DESCRIPTION_NAME
    if not (weights.is_file() and description.is_file()):
        raise ConfigurationError(
            f"role {role!r}: adapter path {config.path!r} has no {WEIGHTS_NAME} and {DESCRIPTION_NAME} in {folder}.",
            hint="give a folder written by `save_pretrained` of peft or by a run's adapter export.",
        )
    try:
        saved = json.loads(description.read_text(encoding="utf-8"))
        state = load_file(weights)
    except (ValueError, SafetensorError) as error:
        raise DataError(f"the adapter in {folder} cannot be read: {error}", hint="export it again.") from error
    if not isinstance(saved, dict):
        raise DataError(f"{description} is not a JSON object.", hint="export the adapter again.")
    _refuse_other_fields(saved, role=role, folder=folder)
    _check_shape(config, saved, role=role, folder=folder)
    if foreign := sorted(name for name in state if not name.startswith(PEFT_PREFIX)):
        raise DataError(
            f"{weights} has the tensor {foreign[0]!r}, which PEFT does not read.", hint="export the adapter again."
        )
    refuse_nonfinite(state, source=str(weights), hint="use an earlier export; the training of this one diverged.")
    return {name.removeprefix(PEFT_PREFIX): value for name, value in state.items()}


def _refuse_other_fields(saved: dict[str, Any], *, role: str, folder: Path) -> None:
    """Refuse every field that makes the adapter something else than plain LoRA, also fields of newer peft versions."""
    defaults = LoraConfig().to_dict()
    for name, value in sorted(saved.items()):
        if name in HARMLESS or name in _COMPARED or (name in defaults and _same(value, defaults[name])):
            continue
        if any(_same(value, allowed) for allowed in ALLOWED.get(name, ())):
            continue
        # A newer peft writes fields that this version does not know, even if their feature is off.
        if name not in defaults and json.dumps(value) in _UNUSED:
            continue
        known = "makes it different from plain LoRA" if name in defaults else "is unknown to this version of peft"
        hint = "export the adapter as plain LoRA."
        if name == "init_lora_weights":
            hint = "export it with `save_pretrained(..., path_initial_model_for_weight_conversion=...)` of peft."
        elif name not in defaults:
            hint = f"if {name} has its default value, remove it from {DESCRIPTION_NAME}; else export as plain LoRA."
        raise ConfigurationError(
            f"role {role!r}: the adapter in {folder} has {name} {shortened(value)}, which {known}.", hint=hint
        )


def _same(value: object, other: object) -> bool:
    """Whether two values are equal as JSON, where 0 is not false (in Python it is). None equals an empty mapping."""
    return json.dumps(value, default=str) == json.dumps(other, default=str) or (other == {} and value is None)


def _check_shape(config: AdapterConfig, saved: dict[str, Any], *, role: str, folder: Path) -> None:
    # peft also allows a regular expression as targets. It never equals the team file's list, so it is refused.
    targets = saved.get("target_modules")
    found = {
        "rank": saved.get("r"),
        "alpha": saved.get("lora_alpha"),
        "target_modules": sorted(targets) if isinstance(targets, list) else targets,
    }
    wanted = {"rank": config.rank, "alpha": config.alpha, "target_modules": sorted(config.target_modules)}
    if found != wanted:
        raise ConfigurationError(
            f"role {role!r}: the adapter in {folder} has {found}, but the team file says {wanted}.",
            hint=f"set `adapter: {{rank: {found['rank']}, alpha: {found['alpha']}, "
            f"target_modules: {found['target_modules']}}}` or use another folder.",
        )
