"""Results: print the final tables and the paths of all outputs; write results.json and the learning curve."""

from __future__ import annotations

import json
import time
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from rich.console import Console
from typing_extensions import override

from mgrpo_lightning.callbacks.adapter_export import AdapterExport
from mgrpo_lightning.callbacks.best_checkpoint import BestCheckpoint
from mgrpo_lightning.callbacks.rollout_log import RolloutLog
from mgrpo_lightning.callbacks.tables import accuracy_table, figures_table
from mgrpo_lightning.errors import DataError
from mgrpo_lightning.persistence.atomic import alone, atomic_path
from mgrpo_lightning.persistence.run_lock import FOLDER

if TYPE_CHECKING:
    from mgrpo_lightning.modules.team import TeamModule

FIT = ("before", "after", "best", "history", "steps", "seconds", "paths")
"""Entries of results.json that a fit writes."""


class Results(Callback):
    """Prints the final tables and writes ``results.json`` and ``learning_curve.png`` into the run folder.

    After a fit, the file holds ``before`` (the validation at step 0), ``after`` (the last validation), ``history`` (all
    validations), ``best`` (step and score of what ``BestCheckpoint`` keeps), ``steps``, ``seconds.fit`` (the sum over
    all attempts of a resumed run) and ``paths``.
    ``mgrpo validate`` and ``mgrpo test`` add their records under their own names. Each command replaces only its own
    entries. A lock keeps this true if two commands end at the same time.

    Args:
        dirpath: Folder of both files; None is the run folder.
    """

    def __init__(self, dirpath: str | None = None) -> None:
        self.dirpath = None if dirpath is None else str(Path(dirpath).absolute())
        self._rewards: dict[str, list[tuple[int, float]]] = {}
        self._seconds = 0.0
        self._started = time.monotonic()

    @override
    def state_dict(self) -> dict[str, Any]:
        rewards = {role: [list(point) for point in points] for role, points in self._rewards.items()}
        return {"rewards": rewards, "seconds": self._elapsed()}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._rewards = {
            role: [(step, value) for step, value in points] for role, points in state_dict["rewards"].items()
        }
        self._seconds = state_dict["seconds"]

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._started = time.monotonic()  # the callback is made earlier; count from the start of the command

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        module = cast("TeamModule", pl_module)
        for role in module.roles:
            if (reward := module.metrics.get(f"{role}/reward")) is not None:
                self._rewards.setdefault(role, []).append((trainer.global_step, reward))

    @override
    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Print and write the results. Lightning calls this last, when no progress bar disturbs the output."""
        if not trainer.is_global_zero or stage == "predict":
            return
        records = cast("TeamModule", pl_module).validation_results
        if stage == "fit":
            self._close_fit(trainer, records)
        elif records:
            self._close_evaluation(trainer, records[-1], stage)

    def _close_fit(self, trainer: Trainer, records: list[dict[str, Any]]) -> None:
        from mgrpo_lightning.callbacks.curve import draw_curve  # here: matplotlib takes a second, --help needs none

        root = self._folder(trainer)
        draw_curve(root / "learning_curve.png", records, self._rewards)
        shown = _before_and_after(records)
        paths = {**_written(trainer), "learning_curve": str(root / "learning_curve.png")}
        results = {
            **shown,
            **({"best": best.best} if (best := _best(trainer)) else {}),
            "history": records,
            "steps": trainer.global_step,
            "seconds": {"fit": self._elapsed()},
            "paths": paths,
        }
        self._write(trainer, results, old=FIT)
        self._show(shown, paths | {"results": str(root / "results.json")})

    def _close_evaluation(self, trainer: Trainer, record: dict[str, Any], stage: str) -> None:
        path = self._folder(trainer) / "results.json"
        self._write(trainer, {stage: record}, old=(stage,))
        self._show({stage: record}, {"results": str(path)})

    def _show(self, runs: dict[str, dict[str, Any]], paths: dict[str, str]) -> None:
        console = Console()
        if runs:
            console.print(accuracy_table(runs), figures_table(runs))
        width = max(map(len, paths))
        for name, path in paths.items():
            console.print(f"{name:<{width}}  {path}", markup=False, highlight=False, soft_wrap=True)

    def _write(self, trainer: Trainer, results: dict[str, Any], *, old: Collection[str]) -> None:
        """Replace the entries named in ``old`` by ``results`` and keep all others."""
        path = self._folder(trainer) / "results.json"
        with alone(path.parent / FOLDER / path.name):  # a lock: reading and writing must be one operation
            try:
                there = _read(path)
            except DataError:
                if old is not FIT:
                    raise
                there = {}  # a fit of days must not fail on a damaged file that it replaces anyway
            others = {name: entry for name, entry in there.items() if name not in old}
            with atomic_path(path) as temporary:
                temporary.write_text(json.dumps({**results, **others}, indent=2) + "\n", encoding="utf-8")

    def _folder(self, trainer: Trainer) -> Path:
        return Path(self.dirpath or trainer.default_root_dir)

    def _elapsed(self) -> float:
        return self._seconds + time.monotonic() - self._started


def _before_and_after(records: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    shown = {}
    if records and records[0]["step"] == 0:
        shown["before"] = records[0]
    if records and records[-1]["step"] > 0:
        shown["after"] = records[-1]
    return shown


def _best(trainer: Trainer) -> BestCheckpoint | None:
    """Return the callback that has kept the best checkpoints, if it has."""
    found = (callback for callback in trainer.callbacks if isinstance(callback, BestCheckpoint))  # type: ignore[attr-defined]
    return next((callback for callback in found if any(callback.best.values())), None)


def _written(trainer: Trainer) -> dict[str, str]:
    """Return the paths that loggers and other callbacks have written, by kind of output."""
    paths = {}
    if best := _best(trainer):
        paths["best"] = str(best.folder(trainer))
    for logger in trainer.loggers:
        if logger.log_dir:
            paths[type(logger).__name__.removesuffix("Logger").lower()] = logger.log_dir
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, AdapterExport):
            paths["adapters"] = str(callback.folder(trainer))
        elif isinstance(callback, RolloutLog):
            paths["rollouts"] = str(callback.folder(trainer))
        elif isinstance(callback, ModelCheckpoint) and callback.best_model_path:
            paths["checkpoint"] = callback.best_model_path
    return paths


def _read(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(results, dict):
            raise ValueError("it is not an object")
    except ValueError as error:
        raise DataError(f"{path} is not JSON: {error}.", hint="move it away; the next run writes a new one.") from error
    return results
