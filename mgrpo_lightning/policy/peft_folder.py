"""Read a PEFT folder as an adapter's start: its weights by our names, refused where it is another adapter's shape."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from mgrpo_lightning.errors import ConfigurationError, DataError
from mgrpo_lightning.policy.adapters import _PEFT_PREFIX, WEIGHTS_NAME
from mgrpo_lightning.roles import AdapterConfig


def read_peft_folder(config: AdapterConfig, *, role: str) -> dict[str, Tensor]:
    """The state in ``config.path``; ``pocket`` stands for the embedded model's warm-started adapter of this role.

    Raises:
        ConfigurationError: The folder is no PEFT folder, or its rank, alpha or targets are not the team file's.
        DataError: The weights cannot be read.
    """
    assert config.path is not None
    folder = Path(config.path)
    if config.path == "pocket":
        folder = Path(str(files("mgrpo_lightning.pocket"))) / "adapters" / role
    weights, description = folder / WEIGHTS_NAME, folder / "adapter_config.json"
    if not (weights.is_file() and description.is_file()):
        raise ConfigurationError(
            f"role {role!r}: adapter path {config.path!r} has no {WEIGHTS_NAME} and adapter_config.json in {folder}.",
            hint="give a folder written by `save_pretrained` of peft or by a run's adapter export.",
        )
    try:
        saved = json.loads(description.read_text())
        state = load_file(weights)
    except (ValueError, SafetensorError) as error:
        raise DataError(f"the adapter in {folder} cannot be read: {error}", hint="export it again.") from error
    _check_shape(config, saved, role=role, folder=folder)
    return {name.removeprefix(_PEFT_PREFIX): value for name, value in state.items()}


def _check_shape(config: AdapterConfig, saved: dict[str, object], *, role: str, folder: Path) -> None:
    targets = saved.get("target_modules")
    found = {
        "rank": saved.get("r"),
        "alpha": saved.get("lora_alpha"),
        "target_modules": sorted(targets) if isinstance(targets, list) else targets,
    }
    wanted = {"rank": config.rank, "alpha": config.alpha, "target_modules": sorted(config.target_modules)}
    if saved.get("peft_type") != "LORA" or saved.get("use_dora") or saved.get("use_rslora"):
        raise ConfigurationError(
            f"role {role!r}: the adapter in {folder} is no plain LoRA adapter.", hint="train and export one with LoRA."
        )
    if found != wanted:
        raise ConfigurationError(
            f"role {role!r}: the adapter in {folder} has {found}, the team file says {wanted}.",
            hint=f"set `adapter: {{rank: {found['rank']}, alpha: {found['alpha']}, "
            f"target_modules: {found['target_modules']}}}` or take another folder.",
        )
