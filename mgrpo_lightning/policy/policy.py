"""Policy: the LLM that plays one role, which is a shared frozen base, that role's adapter and its chat template."""

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
from mgrpo_lightning.policy.adapters import initial_state
from mgrpo_lightning.policy.chat import Chat
from mgrpo_lightning.policy.identity import (
    OF_A_START,
    Identity,
    identity_of,
    read_identity,
    refuse_other,
    write_identity,
)
from mgrpo_lightning.policy.loading import Base
from mgrpo_lightning.policy.peft_folder import read_peft_folder
from mgrpo_lightning.roles.config import OptimizerConfig, RoleConfig


class Policy:
    """One role's policy. Several policies may share one base.

    Args:
        role: The role's name, which is also its adapter's.
        config: The role's block of the team file.
        base: The loaded base; this role's adapter is added to it.
        seed: The run's seed: the adapter's start depends on it and the role's name alone.
        owner: The policy whose adapter this role shares; None: it has its own.

    Raises:
        ConfigurationError: The settings would train on other probabilities than were sampled from, the adapter does not
            fit the base, or the chat template cannot be used.
    """

    def __init__(self, role: str, config: RoleConfig, base: Base, *, seed: int, owner: Policy | None = None) -> None:
        refuse_biased_training(role, config)
        self.role = role
        self.config = config
        self.base = base
        self.chat = Chat(base.tokenizer, config.chat_template, eos_ids=base.eos_ids)
        self.adapter: str = role if owner is None else owner.adapter
        """The adapter's name: that of the role that owns it."""
        self._owner = owner
        self._version = 0
        self._seed = seed
        self._reference = f"{self.adapter}: reference"  # no role can be called so
        if owner is None:
            base.adapters.add(role, config.adapter, trainable=config.trainable)
            base.adapters.load(role, self._start(), source=str(config.adapter.path))

    @property
    def version(self) -> int:
        """Number of updates the adapter has had."""
        return self._version if self._owner is None else self._owner.version

    @version.setter
    def version(self, updates: int) -> None:
        assert self._owner is None, f"the updates of {self.adapter}'s adapter are counted there"
        self._version = updates

    @property
    def device(self) -> torch.device:
        """Where the policy computes."""
        return self.base.device

    @contextmanager
    def active(self) -> Iterator[None]:
        """Make this role's adapter the one that forward passes of the base add; ``requires_grad`` stays as it is."""
        with self.base.adapters.select(self.adapter):
            yield

    @contextmanager
    def sampling(self) -> Iterator[None]:
        """Like ``active``, for a sampler: from the base's dense copy if there is one, and without gradients."""
        with self.base.dense.select(self._key) if self.base.dense else self.active():
            yield

    @contextmanager
    def updating(self) -> Iterator[None]:
        """Like ``active``, for an update: from the base's dense copy too, where that is what base and adapter compute.

        In a type shorter than float32 an adapter that is added to the weights loses most of its bits.
        """
        exact = self.base.model.dtype in (torch.float32, torch.float64)
        with self.base.dense.select(self._key) if self.base.dense and exact else self.active():
            yield

    @contextmanager
    def reference(self) -> Iterator[None]:
        """Make the adapter of the start of training the active one, frozen; it takes no memory before the first use.

        It is made again from the adapter's folder or seed, so it is the same after a resume. Switching the adapter off
        instead would give the bare base, another policy after a warm start (correctness.md 24).
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
        """The parameters of this role's adapter, names sorted and independent of the other roles."""
        return self.base.adapters.parameters(self.adapter)

    def adapter_state(self) -> dict[str, Tensor]:
        """A copy of the adapter, whichever adapter is active and whatever requires gradients."""
        return {name: parameter.detach().clone() for name, parameter in self.named_parameters().items()}

    def load_adapter_state(self, state: Mapping[str, Tensor]) -> None:
        """Copy ``state`` into the adapter, strictly.

        Raises:
            DataError: A name is missing or unexpected, or a shape differs.
        """
        self.base.adapters.load(self.adapter, state, source=f"the state given for role {self.role!r}")

    @cached_property
    def identity(self) -> Identity:
        """What its adapter belongs to, whatever it has learned."""
        return identity_of(self)

    def fingerprint(self) -> str:
        """A hash of what its turns are sampled from: the base as loaded, the settings of play, the adapter."""
        play = replace(self.config, reward=RewardConfig(), objective=ObjectiveConfig(), optimizer=OptimizerConfig())
        model = self.base.model
        base = (self.base.name, self.base.digest, model.dtype, bool(getattr(model, "is_loaded_in_4bit", False)))
        digest = blake2b(repr((base, play)).encode(), digest_size=16)
        for name, parameter in self.named_parameters().items():
            digest.update(name.encode())
            digest.update(parameter.detach().cpu().contiguous().view(torch.uint8).numpy().data)
        return digest.hexdigest()

    def save_peft(self, folder: Path | str) -> None:
        """Write the adapter as a folder that ``PeftModel.from_pretrained`` loads, and beside it what it belongs to."""
        self.base.adapters.save(self.adapter, Path(folder))
        write_identity(self.identity, Path(folder))

    def refuse_other_start(self, accepted: Collection[str]) -> None:
        """Refuse an adapter to start from that was trained on another base, or one in another quantisation.

        Args:
            accepted: Parts that may differ.

        Raises:
            ConfigurationError: The folder says that it was, and that is not accepted.
        """
        if (path := self.config.adapter.path) is not None and path != "pocket":
            saved, source = {self.role: read_identity(Path(path))}, f"the adapter in {path}"
            refuse_other(saved, {self.role: self.identity}, source=source, accepted=accepted, parts=OF_A_START)

    def _start(self) -> Mapping[str, Tensor]:
        if self.config.adapter.path is not None:
            return read_peft_folder(self.config.adapter, role=self.adapter)
        return initial_state(self.named_parameters(), seed=self._seed, role=self.adapter)


def refuse_biased_training(role: str, config: RoleConfig) -> None:
    """Refuse settings under which the trained log-probabilities are not those that were sampled from.

    Raises:
        ConfigurationError: Dropout (correctness.md 12), which no warm start has either; or top-p, top-k (8) or
            temperature 0 in reinforcement learning.
    """
    if not config.trainable:
        return
    if config.adapter.dropout > 0:
        raise ConfigurationError(
            f"role {role!r}: adapter dropout is {config.adapter.dropout}: M-GRPO's ratio would not be 1, and a warm "
            "start computes without dropout too.",
            hint="set `adapter.dropout: 0`.",
        )
    if config.objective.kind != "mgrpo":
        return
    sampling = config.sampling
    if sampling.top_p < 1 or sampling.top_k > 0:
        raise ConfigurationError(
            f"role {role!r}: training samples with top_p {sampling.top_p} and top_k {sampling.top_k}; "
            "the sampler would renormalise and the trainer not.",
            hint="set `sampling: {top_p: 1.0, top_k: 0}`.",
        )
    if sampling.temperature <= 0:
        raise ConfigurationError(
            f"role {role!r}: training samples at temperature {sampling.temperature}.",
            hint="give a temperature above 0.",
        )
