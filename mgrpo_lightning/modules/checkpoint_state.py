"""Save and load a checkpoint's adapters, optimizer moments and update counts by role; refuse NaN and other models.

Coupled and decoupled runs use the same names, so a role's state loads in both. It holds only tensors, numbers and
dicts, so it loads with ``weights_only=True``.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_warn

from mgrpo_lightning.errors import DataError
from mgrpo_lightning.policy.finite import refuse_nonfinite
from mgrpo_lightning.policy.identity import refuse_other
from mgrpo_lightning.policy.policy import Policy


def role_states(policies: Mapping[str, Policy], optimizer: torch.optim.Optimizer | None) -> dict[str, dict[str, Any]]:
    """Return the state of every role.

    Args:
        optimizer: Optimizer with one parameter group per role; None saves the weights only.

    Raises:
        DataError: A value is infinite or NaN; such a state is never saved.
    """
    states = {
        role: {
            "adapter": {name: tensor.detach().cpu().clone() for name, tensor in policy.adapter_state().items()},
            # By name and not by index: the order of parameters differs when a process trains other roles.
            "optimizer": {
                name: dict(optimizer.state[parameter])
                for name, parameter in policy.named_parameters().items()
                if optimizer is not None and parameter in optimizer.state
            },
            "updates": policy.version,
        }
        for role, policy in policies.items()
    }
    for role, state in states.items():
        _refuse_nonfinite(state, f"role {role!r}", hint="resume from the last checkpoint with a lower optimizer.lr.")
    return states


def _refuse_nonfinite(state: Mapping[str, Any], source: str, *, hint: str) -> None:
    """Reject a role's state if a value of the adapter or of its optimizer moments is infinite or NaN."""
    moments = {f"{key} of {name}": value for name, of in state["optimizer"].items() for key, value in of.items()}
    refuse_nonfinite({**state["adapter"], **moments}, source=source, hint=hint)


def refuse_other_checkpoint(
    policies: Mapping[str, Policy], checkpoint: Mapping[str, Any], *, source: str, accepted: Collection[str]
) -> None:
    """Require that a checkpoint belongs to these policies; warn about a checkpoint without identity.

    Args:
        policies: Policies of all local roles, by role.
        source: Path of its file, for errors.
        accepted: Parts of the identity that may differ.

    Raises:
        ConfigurationError: Another part differs.
    """
    saved = checkpoint.get("identity")
    if saved is None:
        rank_zero_warn(f"{source} does not record its model: an older version wrote it.")
        return
    refuse_other(saved, {name: policy.identity for name, policy in policies.items()}, source=source, accepted=accepted)


def load_role_states(policies: Mapping[str, Policy], checkpoint: Mapping[str, Any], *, source: str) -> None:
    """Load the adapter and the update count of every role.

    Args:
        checkpoint: A Lightning checkpoint written by this package.
        source: Path of its file, for errors.

    Raises:
        DataError: The checkpoint is not from a team, its roles or adapters differ, or a value is infinite or NaN.
    """
    if "roles" not in checkpoint:
        raise DataError(
            "the checkpoint has no roles, so it was not written by mgrpo.",
            hint="give a checkpoint of a `mgrpo fit` run.",
        )
    states = checkpoint["roles"]
    if set(states) != set(policies):
        raise DataError(
            f"the checkpoint has the roles {sorted(states)}, but this team has {sorted(policies)}.",
            hint="use the team file of the checkpoint: config.yaml in its run folder.",
        )
    for role, state in states.items():
        # All roles are checked before any is loaded, so that an error leaves every policy unchanged.
        _refuse_nonfinite(state, f"{source}, role {role!r}", hint="resume from an earlier checkpoint.")
    for role, policy in policies.items():
        policy.load_adapter_state(states[role]["adapter"])
        policy.version = states[role]["updates"]


def load_optimizer_state(
    optimizer: torch.optim.Optimizer, policies: Mapping[str, Policy], states: Mapping[str, Mapping[str, Any]]
) -> None:
    """Restore the optimizer moments by role and parameter name; roles that it does not step are skipped.

    Args:
        optimizer: Optimizer with one parameter group per role.
        states: ``checkpoint["roles"]``, empty for a new run.
    """
    stepped = {group["name"] for group in optimizer.param_groups}
    for role, state in states.items():
        if role not in stepped:  # the role was trained in the checkpoint's run and is frozen now
            continue
        parameters = policies[role].named_parameters()
        for name, moments in state["optimizer"].items():
            parameter = parameters[name]
            optimizer.state[parameter] = {
                # AdamW keeps its step count, a scalar tensor, on the CPU.
                key: value.to(parameter.device) if isinstance(value, torch.Tensor) and value.ndim else value
                for key, value in moments.items()
            }
