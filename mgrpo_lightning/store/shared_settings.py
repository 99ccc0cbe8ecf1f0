"""Which settings the processes of all roles must have alike, and which may differ by process; list differences."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from mgrpo_lightning.roles.team_file import flat

OWN: Mapping[str, str] = {
    r"ckpt_path|weights_only|dry_run|config": "how this process was started",
    r"run\.(role|root)": "which role it is, and where its machine has the folder of all runs",
    r"checkpoint\..+": "when it saves; each begins again where it has saved",
    r"(progress|rollout_log|alarm|distributions|export|predictions|results|stop)\..+": "what it writes and shows",
    r"trainer\.(accelerator|strategy|devices|num_nodes|plugins|sync_batchnorm|benchmark)": "its machine; numbers of "
    "ranks are compared on their own",
    r"trainer\.(default_root_dir|logger|callbacks|log_every_n_steps|enable_checkpointing)": "what it writes",
    r"trainer\.(enable_progress_bar|enable_model_summary|enable_autolog_hparams|model_registry)": "what it shows",
    r"trainer\.(profiler|detect_anomaly|barebones|deterministic|inference_mode|max_time)": "how long it computes",
    r"trainer\.use_distributed_sampler": "there is no sampler",
    r"model\.(quantization|compute_dtype|dense_copy)": "how its machine holds the role's own model",
    r"model\.(token_budget|gradient_checkpointing)": "memory of its machine",
    r"data\.cache_gib": "memory of its machine",
    r"model\.local_roles|data\.(store|journal)": "follow from run.role",
    r"model\.roles\.[^.]+\.(base_model|chat_template|adapter\.path)": "may be paths on the machine of that "
    "role, which alone reads them",
    r"data\.peers\..+": "what it does when another role is gone",
}
"""Keys that may differ between roles, as regular expressions, each with the reason. All other keys must agree."""
_OWN = re.compile("|".join(OWN))
MISSING = "(not there)"


def leaves(config: Any, prefix: str = "") -> dict[str, Any]:
    """Return all values of a resolved config by dotted key; a list or an empty mapping is a value.

    Args:
        prefix: Prefix of the keys.
    """
    if not isinstance(config, Mapping) or not config:
        return {prefix: config}
    found: dict[str, Any] = {}
    for name, value in config.items():
        found |= leaves(value, f"{prefix}.{name}" if prefix else str(name))
    return found


def shared_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that must agree between all roles of a run, as JSON types.

    Args:
        config: The resolved config of a command.
    """
    shared = {key: value for key, value in leaves(flat(config)).items() if not _OWN.fullmatch(key)}
    # A round trip through JSON, so that they compare equal to settings read from the store (tuples become lists).
    found = json.loads(json.dumps(shared, default=str))
    assert isinstance(found, dict)
    return found


def differences(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """Return key and both values of every setting that differs, sorted by key.

    Args:
        ours: Settings of this role.
        theirs: Settings of another role.
    """
    keys = sorted({*ours, *theirs})
    both = ((key, ours.get(key, MISSING), theirs.get(key, MISSING)) for key in keys)
    return [(key, one, other) for key, one, other in both if one != other]
