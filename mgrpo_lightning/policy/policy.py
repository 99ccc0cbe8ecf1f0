"""Policy: one role's base, adapter, chat and version; selects the adapter for sampling, updates or as KL reference."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from hashlib import blake2b
from pathlib import Path

import torch
from torch import Tensor, nn

from mgrpo_lightning.algorithm.config import ObjectiveConfig, RewardConfig
from mgrpo_lightning.errors import ConfigurationError
from mgrpo_lightning.policy.adapter_folder import TrainedAdapter, named_base, write_adapter
from mgrpo_lightning.policy.adapters import initial_state
from mgrpo_lightning.policy.chat import Chat
from mgrpo_lightning.policy.identity import (
    OF_A_START,
    Identity,
    identity_of,
    read_identity,
    refuse_other,
)
from mgrpo_lightning.policy.loading import Base
from mgrpo_lightning.policy.peft_folder import read_peft_folder
from mgrpo_lightning.roles.config import OptimizerConfig, RoleConfig


class Policy:
    """One role's policy. Several policies may share one base.

    Args:
        role: The role's name. The adapter gets the same name.
        config: The role's block of the team file.
        base: The loaded base. The constructor adds this role's adapter to it.
        seed: The run's seed. A new adapter's initial values depend only on this seed and the role's name.
        owner: The policy that owns the adapter, if this role shares one. None: the role has its own adapter.

    Raises:
        ConfigurationError: With these settings, training would compute other probabilities than sampling; or the
            adapter does not fit the base; or the chat template cannot be used.
    """

    def __init__(self, role: str, config: RoleConfig, base: Base, *, seed: int, owner: Policy | None = None) -> None:
        refuse_biased_training(role, config)
        self.role = role
        self.config = config
        self.base = base
        self.chat = Chat(base.tokenizer, config.chat_template, eos_ids=base.eos_ids)
        self.adapter: str = role if owner is None else owner.adapter
        """The adapter's name, which is the name of the role that owns it."""
        self._owner = owner
        self._version = 0
        self._seed = seed
        self._reference = f"{self.adapter}: reference"  # not a valid role name, so no role can have it
        if owner is None:
            base.adapters.add(role, config.adapter, trainable=config.trainable)
            base.adapters.load(role, self._start(), source=str(config.adapter.path))

    @property
    def version(self) -> int:
        """Number of aligned batches that have updated the adapter, each in one or more optimizer steps."""
        return self._version if self._owner is None else self._owner.version

    @version.setter
    def version(self, updates: int) -> None:
        assert self._owner is None, f"the updates of {self.adapter}'s adapter are counted there"
        self._version = updates

    @property
    def device(self) -> torch.device:
        """The device of the base."""
        return self.base.device

    @contextmanager
    def active(self) -> Iterator[None]:
        """Select this role's adapter for the forward passes in the block. ``requires_grad`` does not change."""
        with self.base.adapters.select(self.adapter):
            yield

    @contextmanager
    def sampling(self) -> Iterator[None]:
        """Like ``active``, but for sampling without gradients. Uses the base's dense copy if there is one."""
        with self.base.dense.select(self._key) if self.base.dense else self.active():
            yield

    @contextmanager
    def updating(self) -> Iterator[None]:
        """Like ``active``, but for an update. Uses the base's dense copy only in float32 and float64.

        The dense copy adds the adapter to the weights. In a type shorter than float32 this sum loses most bits of the
        adapter, so the copy would compute another function than base plus adapter.
        """
        exact = self.base.model.dtype in (torch.float32, torch.float64)
        with self.base.dense.select(self._key) if self.base.dense and exact else self.active():
            yield

    @contextmanager
    def reference(self) -> Iterator[None]:
        """Select the reference policy: a frozen adapter with the values from the start of training.

        The reference adapter takes no memory before the first use. It is loaded again from the adapter's folder or
        initialised again from the seed, so it is the same after a resume. To switch the adapter off instead would give
        the bare base, and after a warm start the bare base is another policy (correctness.md 24).
        """
        adapters = self.base.adapters
        if not adapters.parameters(self._reference):
            adapters.add(self._reference, self.config.adapter, trainable=False)
            adapters.load(self._reference, self._start(), source=str(self.config.adapter.path))
        with adapters.select(self._reference):
            yield

    @property
    def _key(self) -> str:
        return self.base.adapters.key(self.adapter)

    def named_parameters(self) -> dict[str, nn.Parameter]:
        """The parameters of this role's adapter, sorted by name. The names do not depend on the other roles."""
        return self.base.adapters.parameters(self.adapter)

    def adapter_state(self) -> dict[str, Tensor]:
        """A copy of this role's adapter. It does not matter which adapter is active or which requires gradients."""
        return {name: parameter.detach().clone() for name, parameter in self.named_parameters().items()}

    def load_adapter_state(self, state: Mapping[str, Tensor]) -> None:
        """Copy ``state`` into the adapter. Names and shapes must match exactly.

        Raises:
            DataError: A name is missing or unexpected, or a shape differs.
        """
        self.base.adapters.load(self.adapter, state, source=f"the state given for role {self.role!r}")

    @cached_property
    def identity(self) -> Identity:
        """The settings that the adapter depends on, such as base and rank. Training does not change them."""
        return identity_of(self)

    def fingerprint(self) -> str:
        """A hash of everything that decides the sampled turns: the loaded base, the settings of play, the adapter."""
        # Reward, objective and optimizer do not affect sampling: a new learning rate must not change the fingerprint.
        play = replace(self.config, reward=RewardConfig(), objective=ObjectiveConfig(), optimizer=OptimizerConfig())
        model = self.base.model
        base = (self.base.name, self.base.digest, model.dtype, bool(getattr(model, "is_loaded_in_4bit", False)))
        digest = blake2b(repr((base, play)).encode(), digest_size=16)
        for name, parameter in self.named_parameters().items():
            digest.update(name.encode())
            # numpy has no bfloat16, so the hash reads the values as bytes.
            digest.update(parameter.detach().cpu().contiguous().view(torch.uint8).numpy().data)
        return digest.hexdigest()

    def trained(self) -> TrainedAdapter:
        """The adapter as it is now, and what an exported folder says about it."""
        parameters = self.named_parameters()
        return TrainedAdapter(self.adapter, self.config.adapter, parameters, self.identity, self.chat, self.version)

    def save_peft(self, folder: Path | str) -> None:
        """Write the adapter as a folder for ``PeftModel.from_pretrained``, with tokenizer, template and identity."""
        write_adapter(self.trained(), Path(folder), named_base(self.identity))

    def refuse_other_start(self, accepted: Collection[str]) -> None:
        """Refuse a start adapter that was trained on another base or with another quantisation.

        Args:
            accepted: Names of identity parts that may differ (see ``identity.PARTS``).

        Raises:
            ConfigurationError: The identity file in ``adapter.path`` differs in a part that is not accepted.
        """
        if (path := self.config.adapter.path) is not None and path != "pocket":
            saved, source = {self.role: read_identity(Path(path))}, f"the adapter in {path}"
            refuse_other(saved, {self.role: self.identity}, source=source, accepted=accepted, parts=OF_A_START)

    def _start(self) -> Mapping[str, Tensor]:
        if self.config.adapter.path is not None:
            return read_peft_folder(self.config.adapter, role=self.adapter)
        return initial_state(self.named_parameters(), seed=self._seed, role=self.adapter)


def refuse_biased_training(role: str, config: RoleConfig) -> None:
    """Refuse settings with which the trainer would compute other log-probabilities than the sampler.

    Raises:
        ConfigurationError: The role is trained with adapter dropout (correctness.md 12), which a warm start does not
            use either; or reinforcement learning samples with top-p, top-k (correctness.md 8) or temperature 0.
    """
    if not config.trainable:
        return
    if config.adapter.dropout > 0:
        raise ConfigurationError(
            f"role {role!r}: adapter dropout is {config.adapter.dropout}; training needs 0, so that the "
            "importance ratio of an unchanged policy is 1.",
            hint="set `adapter.dropout: 0`.",
        )
    if config.objective.kind != "mgrpo":
        return
    sampling = config.sampling
    if sampling.top_p < 1 or sampling.top_k > 0:
        raise ConfigurationError(
            f"role {role!r}: training samples with top_p {sampling.top_p} and top_k {sampling.top_k}; "
            "the sampler would renormalise probabilities and the trainer would not.",
            hint="set `sampling: {top_p: 1.0, top_k: 0}`.",
        )
    if sampling.temperature <= 0:
        raise ConfigurationError(
            f"role {role!r}: training samples at temperature {sampling.temperature}.",
            hint="set sampling.temperature above 0.",
        )
