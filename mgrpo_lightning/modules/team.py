"""TeamModule: root LightningModule and ``model`` block: loads bases, steps all roles, logs, validates, checkpoints."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Literal

import torch
from lightning.pytorch import LightningModule
from torch import nn
from typing_extensions import override

from mgrpo_lightning.distributed.ranks import over_ranks, refuse_apart
from mgrpo_lightning.errors import ConfigurationError
from mgrpo_lightning.modules.checkpoint_state import (
    load_optimizer_state,
    load_role_states,
    refuse_other_checkpoint,
    role_states,
)
from mgrpo_lightning.modules.evaluation import Evaluation, judge_metrics
from mgrpo_lightning.modules.metric_logging import log_step_metrics
from mgrpo_lightning.modules.play_metrics import observe_play, play_metrics
from mgrpo_lightning.modules.policies import load_policies, played_here
from mgrpo_lightning.modules.role import RoleModule
from mgrpo_lightning.modules.team_update import update_team
from mgrpo_lightning.modules.trainer_keys import refuse_trainer
from mgrpo_lightning.modules.validation_config import HeldOutBatch
from mgrpo_lightning.policy.chat import Chat
from mgrpo_lightning.policy.identity import known_parts
from mgrpo_lightning.policy.policy import Policy
from mgrpo_lightning.protocol.tree import render
from mgrpo_lightning.ranges import Count, Seed, ranged
from mgrpo_lightning.records.batch import AlignedBatch, TeamBatch
from mgrpo_lightning.roles.config import RoleConfig, main_role, rewarded
from mgrpo_lightning.roles.sharing import adapter_owners, refuse_split_adapters

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@ranged("model")
class TeamModule(LightningModule):
    """All roles of a team on shared base models; each has its own adapter, objective, clipping and learning rate.

    Optimization is manual. Roles that share an adapter are one policy: their losses are added, and clipped and stepped
    once. A training step is one aligned batch of each role, however many optimizer steps a role takes on it.

    Args:
        roles: The roles by name; exactly one of them, main, is called by no other role.
        quantization: ``nf4`` stores the linear layers of the base models in 4 bit, ``none`` leaves them unquantised.
        compute_dtype: Data type in which the base models compute; adapters are always float32.
        token_budget: Maximum number of tokens in one micro-batch; a shared prefix counts once.
        gradient_checkpointing: Keep one hidden state per layer and token for the backward pass, and recompute the rest:
            a second forward pass per update, for much less memory.
        dense_copy: Sample from a dense copy of the linear layers with the adapter merged in, instead of from the 4-bit
            layers; in float32, update from it too. Faster on small models, for the memory of one unquantised model (two
            in float32 on a CPU).
        local_roles: Roles that this process plays and trains; None: all. Of others, only calls and reports arrive.
        accept_changes: Parts (``PARTS``) in which the identity of a checkpoint or start adapter may differ.
        seed: Fixes the initial values of the adapters.

    Raises:
        ConfigurationError: The roles do not form a team (see ``main_role``), a local role does not exist, or adapters
            cannot be shared like this (see ``adapter_owners``).
    """

    def __init__(
        self,
        roles: dict[str, RoleConfig],
        quantization: Literal["nf4", "none"] = "nf4",
        compute_dtype: Literal["float32", "bfloat16"] = "float32",
        token_budget: Count = 8192,
        gradient_checkpointing: bool = False,
        dense_copy: bool = False,
        local_roles: list[str] | None = None,
        accept_changes: list[str] | None = None,
        seed: Seed = 0,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.main = main_role(roles)
        self.roles = roles = rewarded(roles)
        if roles[self.main].queue is not None:
            raise ConfigurationError(
                f"role {self.main!r} has a queue.", hint="leave queue out of its block: only sub-agents may have one."
            )
        self.local_roles = played_here(roles, local_roles)
        self.trained_roles = [name for name in self.local_roles if roles[name].trainable]
        self._owners = adapter_owners(roles)
        refuse_split_adapters(roles, self.local_roles)
        if not any(role.trainable for role in roles.values()):
            raise ConfigurationError("no role is trainable.", hint="set `trainable: true` on at least one role.")
        self.quantization: Literal["nf4", "none"] = quantization
        self.compute_dtype = DTYPES[compute_dtype]
        self.token_budget = token_budget
        self.gradient_checkpointing = gradient_checkpointing
        self.dense_copy = dense_copy
        self.accept_changes = known_parts(accept_changes or ())
        self.seed = seed
        self.policies: dict[str, Policy] = {}
        self.chats: dict[str, Chat] = {}
        """Chats of the local roles, including those behind an endpoint, which have no policy."""
        self.num_steps = 0
        """Training steps so far; also set by a checkpoint that is loaded for validation, where no trainer counts."""
        self.metrics: dict[str, float] = {}
        """Metrics of the last training step, by name."""
        self.validation_results: list[dict[str, Any]] = []
        """One entry per validation run; the first one of a fit is the untrained team."""
        # A list, because a ModuleDict rejects role names that are its own attributes, such as `keys`.
        self.role_modules = nn.ModuleList(
            RoleModule(name, roles[name], token_budget=token_budget, gradient_checkpointing=gradient_checkpointing)
            for name in self.trained_roles
        )
        self._play_metrics = play_metrics(roles)
        self._evaluation: Evaluation | None = None
        self._restored: dict[str, Any] = {}

    def role_module(self, role: str) -> RoleModule:
        """Return the module of one trained role."""
        module = self.role_modules[self.trained_roles.index(role)]
        assert isinstance(module, RoleModule)
        return module

    @property
    def adapters(self) -> dict[str, Policy]:
        """The policies that own an adapter, by role; all other policies share one of these."""
        return {name: policy for name, policy in self.policies.items() if self._owners[name] == name}

    def begin(self, batches: Mapping[str, AlignedBatch]) -> None:
        """Start the updates of roles with a lag or a queue, before the step that trains on them.

        Args:
            batches: Batches by role; the step must get the same objects.
        """
        for name, batch in batches.items():
            self.role_module(name).begin(batch)

    def advance(self) -> bool:
        """Compute one micro-batch of the started updates; return whether there was one."""
        return any(self.role_module(name).advance() for name in self.trained_roles)

    @override
    def setup(self, stage: str) -> None:
        refuse_trainer(self.trainer)

    @override
    def configure_model(self) -> None:
        if self.policies:
            return
        self.policies, self.chats = load_policies(
            self.roles,
            self.local_roles,
            self._owners,
            quantization=self.quantization,
            compute_dtype=self.compute_dtype,
            dense_copy=self.dense_copy,
            device=self.device,
            seed=self.seed,
        )
        for policy in self.adapters.values():
            policy.refuse_other_start(self.accept_changes)
        for name in self.trained_roles:
            self.role_module(name).attach(self.policies[name])

    @override
    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(
            {
                "name": name,
                "params": list(self.policies[name].named_parameters().values()),
                "lr": (config := self.roles[name].optimizer).lr,
                "betas": tuple(config.betas),
                "weight_decay": config.weight_decay,
            }
            # Lightning counts optimizer steps, so a process that trains no role needs an optimizer too.
            for name in self.adapters
            if name in self.trained_roles or not self.trained_roles
        )

    @override
    def on_fit_start(self) -> None:
        refuse_apart(self.num_steps, self.device)
        load_optimizer_state(self._optimizer, self.adapters, self._restored)
        self._restored = {}

    @override
    def training_step(self, batch: TeamBatch, batch_idx: int) -> None:
        started = time.perf_counter()
        self._assert_on_policy(batch)
        metrics, updated = update_team(
            [self.role_module(name) for name in self.trained_roles],
            batch,
            self._optimizer,
            self.optimizers().step,  # type: ignore[union-attr]
            max_steps=self.trainer.max_steps,
        )
        for name in updated:
            self.policies[name].version += 1
        self.num_steps += 1
        metrics |= self._play_figures(batch)
        metrics["seconds/update"] = time.perf_counter() - started
        self.metrics = metrics
        log_step_metrics(self, metrics, step=batch.step)

    def _play_figures(self, batch: TeamBatch) -> dict[str, float]:
        """The metrics of a step's play, over all ranks."""
        observe_play(self._play_metrics, batch.groups, self.roles)
        metrics = self._play_metrics.take()[0]
        metrics |= {f"judge/{name}": value for name, value in judge_metrics(batch.agreement, self.device).items()}
        counts = over_ranks(list(batch.counts.values()), self.device) if batch.counts else []
        metrics |= dict(zip(batch.counts, counts, strict=True))
        return metrics | {f"seconds/{phase}": value for phase, value in batch.seconds.items()}

    @override
    def on_validation_epoch_start(self) -> None:
        self._evaluation = None

    @override
    def validation_step(self, batch: HeldOutBatch, batch_idx: int) -> None:
        if self._evaluation is None:
            self._evaluation = Evaluation.of_run(self.roles, batch.task, batch.validation).to(self.device)
        self._evaluation.observe(batch)

    @override
    def on_validation_epoch_end(self) -> None:
        assert self._evaluation is not None
        means, result = self._evaluation.finish(self.num_steps, self.device)
        self.validation_results.append(result)
        self.log_dict({f"val/{name}": value for name, value in means.items()}, batch_size=1)

    on_test_epoch_start = on_validation_epoch_start
    test_step = validation_step
    on_test_epoch_end = on_validation_epoch_end

    @override
    def predict_step(self, batch: HeldOutBatch, batch_idx: int) -> list[str]:
        return [render(rollout) for group in batch.groups for rollout in group.rollouts]

    @override
    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Replace Lightning's state by adapters and optimizer state, by role and name; never save the base model."""
        fitting = bool(checkpoint.get("optimizer_states"))
        checkpoint["state_dict"] = {}
        checkpoint["optimizer_states"] = []
        checkpoint["roles"] = role_states(self.adapters, self._optimizer if fitting else None)
        checkpoint["identity"] = {name: policy.identity for name, policy in self.policies.items()}
        checkpoint["num_steps"] = self.num_steps
        checkpoint["validation_results"] = self.validation_results

    @override
    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        source = str((self._trainer and self._trainer.ckpt_path) or "the checkpoint")
        refuse_other_checkpoint(self.policies, checkpoint, source=source, accepted=self.accept_changes)
        load_role_states(self.adapters, checkpoint, source=source)
        self._restored = checkpoint["roles"]
        self.num_steps = checkpoint["num_steps"]
        self.validation_results = checkpoint["validation_results"]

    @property
    def _optimizer(self) -> torch.optim.Optimizer:
        optimizer = self.optimizers(use_pl_optimizer=False)
        assert isinstance(optimizer, torch.optim.Optimizer)
        return optimizer

    def _assert_on_policy(self, batch: TeamBatch) -> None:
        """Assert that the current adapter, or one within lag or queue, sampled every trained token (row 32)."""
        for name, aligned in batch.roles.items():
            if self.roles[name].objective.kind == "mgrpo":
                versions = {version for row in aligned.rows for version in row.versions}
                newest, role = self.policies[name].version, self.roles[name]
                oldest = 0 if role.queue else newest - role.lag
                assert versions <= set(range(oldest, newest + 1)), f"{name} of version {newest} trains on {versions}"
