"""Invented groups, and a team of two one-weight roles that Lightning really trains."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from mgrpo_lightning.algorithm.config import RewardConfig
from mgrpo_lightning.modules.metric_logging import log_step_metrics
from mgrpo_lightning.modules.validation_config import HeldOutBatch
from mgrpo_lightning.policy.adapter_folder import NamedBase, TrainedAdapter
from mgrpo_lightning.policy.identity import Identity
from mgrpo_lightning.records.batch import AlignedBatch, TeamBatch, TrainingRow
from mgrpo_lightning.records.question import Question
from mgrpo_lightning.records.trajectory import Call, Group, Key, Message, Rollout, Score, Segment, Span, Trajectory
from mgrpo_lightning.roles.config import AdapterConfig, RoleConfig
from tests.support.toy import ToyTask, held_out

ROLES = {
    "main": RoleConfig("pocket", calls=["searcher"], reward=RewardConfig(format=0.1, correct=0.9)),
    "searcher": RoleConfig("pocket", tools=["search"], reward=RewardConfig(format=0.1, correct_main=0.4, expert=0.5)),
}


def make_rollout(key: Key, reward: float, *, calls: int = 1, valid: bool = True) -> Rollout:
    """A rollout whose main earns ``reward`` and delegates ``calls`` times; searchers earn the same."""
    main = _trajectory("main", key, valid=valid)
    main.calls = [Call(0, "searcher", {"task": "t"}, "r", invocation=i + 1) for i in range(calls)]
    subs = [_trajectory("searcher", key._replace(invocation=i + 1), valid=valid) for i in range(calls)]
    for sub in subs:
        sub.calls = [Call(0, "search", {"query": "q"}, "hit")]
    return Rollout(main, subs, {i: Score(format=float(valid), total=reward) for i in range(calls + 1)})


def make_groups(
    rewards: Sequence[Sequence[float]], *, step: int = 0, calls: int = 1, valid: bool = True
) -> list[Group]:
    """One group a row of ``rewards``, one rollout a number in it."""
    return [
        Group(
            Question(f"q{query}", "Highest point of France?", ("Mont Blanc",), level="1"),
            [make_rollout(Key(step, query, k, 0), reward, calls=calls, valid=valid) for k, reward in enumerate(row)],
        )
        for query, row in enumerate(rewards)
    ]


def make_batch(step: int, groups: list[Group]) -> TeamBatch:
    """What the root module gets; the rows of main only, all with advantage 0.5."""
    rows = [
        row
        for group in groups
        for r in group.rollouts
        for row in TrainingRow.of(r.main, advantage=0.5, coefficient=0.25)
    ]
    roles = {"main": AlignedBatch("main", rows)}
    return TeamBatch(step, groups, roles, roles, {"play": 0.0})


def make_record(step: int, exact_match: float) -> dict[str, Any]:
    """An entry of ``validation_results``."""
    return {
        "step": step,
        "questions": 300,
        "repeats": 5,
        "undecided": 2,
        "accuracy": exact_match / 2,
        "pass@5": exact_match,
        "majority@5": exact_match / 4,
        "exact_match": exact_match,
        "f1": exact_match,
        "gaia": exact_match,
        "format_rate": {"main": 0.9, "searcher": None},
        "failed_calls": {"main": None, "searcher": 0.25},
        "delegations_per_rollout": 1.5,
        "calls_per_rollout": 4.25,
        "tokens_per_rollout": 412.4,
        "seconds_per_question": 2.345,
        "by_level": {
            "1": {"questions": 200, "exact_match": exact_match, "accuracy": exact_match / 2},
            "2": {"questions": 100, "exact_match": exact_match / 2, "accuracy": exact_match / 4},
        },
    }


@dataclass
class FakePolicy:
    """A policy that can only be exported, and says what it belongs to."""

    role: str
    version: int = 0

    @property
    def adapter(self) -> str:
        return self.role

    @property
    def identity(self) -> Identity:
        """Its base, and what an export says about it."""
        base = {"name": "pocket", "sha256": ""}
        return {"base_model": base, "quantization": "nf4", "compute_dtype": "float32"}

    def trained(self) -> TrainedAdapter:
        """An adapter without weights and chat; see ``write_fake``."""
        chat: Any = None
        return TrainedAdapter(self.role, AdapterConfig(), {}, self.identity, chat, self.version)


def write_fake(adapter: TrainedAdapter, folder: Path, base: NamedBase, *, like: Path | None = None) -> None:
    """In place of ``write_adapter``: write something that tells role and version."""
    (folder / "adapter_config.json").write_text(f"{adapter.role} {adapter.updates}", encoding="utf-8")


class FakeTeam(LightningModule):
    """Logs and records what TeamModule does, from one weight and no model."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.roles = ROLES
        self.local_roles = list(ROLES)
        self.trained_roles: list[str] = []
        self.adapters = self.policies = {role: FakePolicy(role) for role in ROLES}
        self.chats = {role: SimpleNamespace(has_tool_role=True, stop_ids=(2,), end_id=2) for role in ROLES}
        self.metrics: dict[str, float] = {}
        self.validation_results: list[dict[str, Any]] = []

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)

    def training_step(self, batch: TeamBatch, batch_idx: int) -> None:
        self.weight.grad = torch.ones(1)
        self.optimizers().step()  # type: ignore[union-attr]
        for policy in self.adapters.values():
            policy.version += 1
        metrics = {"reward": 0.25 * batch.step, "format_rate": 0.5, "zero_advantage_groups": 0.125}
        metrics = {f"{role}/{name}": value for role in ROLES for name, value in metrics.items()}
        metrics |= {"delegations_per_rollout": 1.5, "seconds/play": 2.0, "seconds/update": 1.0}
        self.metrics = metrics
        log_step_metrics(self, metrics, step=batch.step)

    def validation_step(self, batch: HeldOutBatch, batch_idx: int) -> None:
        """Nothing to compute."""

    def on_validation_epoch_end(self) -> None:
        step = self.trainer.global_step
        self.validation_results.append(make_record(step, 0.25 + 0.1 * step))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["validation_results"] = self.validation_results

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.validation_results = checkpoint["validation_results"]


@dataclass
class _Stream:
    data: FakeData
    stage: str
    length: int

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[Any]:
        first = self.data.started_at if self.stage == "train" else 0
        for index in range(first, self.length):
            groups = self.data.play(self.stage, index)
            yield make_batch(index, groups) if self.stage == "train" else held_out(groups)


def make_trainer(
    root: Path, *callbacks: Callback, saver: type[ModelCheckpoint] = ModelCheckpoint, every: int = 1, **settings: Any
) -> Trainer:
    """A trainer of fakes, for four steps, that keeps a checkpoint behind every so many, last of all callbacks.

    Args:
        root: The run's folder.
        *callbacks: Before the one that saves.
        saver: The class of that one.
        every: How many steps lie between two checkpoints.
        **settings: More of the trainer's.
    """
    saves = saver(
        root / "checkpoints",
        filename="step={step:06d}",
        auto_insert_metric_name=False,
        every_n_train_steps=every,
        save_top_k=-1,
        enable_version_counter=False,
    )
    usual: dict[str, Any] = {"max_steps": 4, "max_epochs": 1, "num_sanity_val_steps": 0}
    return Trainer(
        default_root_dir=root,
        accelerator="cpu",
        logger=False,
        enable_model_summary=False,
        enable_progress_bar=False,
        callbacks=[*callbacks, saves],
        **usual | settings,
    )


class FakeData(LightningDataModule):
    """Streams invented groups and calls the play hooks as the real data module does."""

    def __init__(self, *, steps: int) -> None:
        super().__init__()
        self.task = ToyTask()
        self.steps = steps
        self.started_at = 0
        self.store: Path | None = None

    def train_dataloader(self) -> _Stream:
        return _Stream(self, "train", self.steps)

    def val_dataloader(self) -> _Stream:
        return _Stream(self, "validate", 2)

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        return batch

    def state_dict(self) -> dict[str, Any]:
        assert self.trainer is not None
        return {"step": self.trainer.global_step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.started_at = state_dict["step"]

    def play(self, stage: str, index: int) -> list[Group]:
        """One phase of two groups of two rollouts."""
        assert self.trainer is not None
        groups = make_groups([[0.0, 1.0], [1.0, 1.0]], step=self.trainer.global_step)
        self._notify("on_play_start", total=4, stage=stage)
        for _ in range(4):
            self._notify("on_play_advance")
        self._notify("on_play_end", groups=groups, stage=stage, step=self.trainer.global_step)
        return groups

    def _notify(self, hook: str, **arguments: Any) -> None:
        for callback in self.trainer.callbacks:  # type: ignore[union-attr]
            if callable(method := getattr(callback, hook, None)):
                method(**arguments)


def _trajectory(role: str, key: Key, *, valid: bool) -> Trajectory:
    spans = [Span("observation", (1, 2)), Span("action", (3, 4), (-0.5, -0.25))]
    messages = [Message("user", "question"), Message("assistant", "<answer>Mont Blanc</answer>")]
    violations = [] if valid else ["no_answer"]
    return Trajectory(
        role, key, "task", 1.0, [Segment(spans)], messages, [], "Mont Blanc", violations, 0 if key.invocation else None
    )
