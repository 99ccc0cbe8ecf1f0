"""Loggers that are W&B's and MLflow's to the package, and keep what they get: neither library is needed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lightning.pytorch.loggers import MLFlowLogger, WandbLogger
from lightning.pytorch.loggers.logger import Logger
from typing_extensions import override


class RecordingWandb(WandbLogger):
    """Keeps metrics, settings and tables."""

    def __init__(self) -> None:
        Logger.__init__(self)
        self.metrics: list[tuple[int | None, dict[str, float]]] = []
        self.settings: list[dict[str, Any]] = []
        self.tables: list[tuple[str, list[str], list[list[Any]], int | None]] = []

    name = "recording"
    version = "0"
    save_dir = None

    @property
    def experiment(self) -> Any:
        return None

    @override
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        self.metrics.append((step, dict(metrics)))

    @override
    def log_hyperparams(self, params: Any) -> None:
        self.settings.append(dict(params))

    @override
    def log_table(  # type: ignore[override]
        self, key: str, columns: list[str], data: list[list[Any]], step: int | None = None
    ) -> None:
        self.tables.append((key, columns, data, step))

    @override
    def finalize(self, status: str) -> None:
        """Nothing is open."""

    @override
    def after_save_checkpoint(self, checkpoint_callback: Any) -> None:
        """No checkpoint is uploaded."""


class _Client:
    """MLflow's client, as far as tables go."""

    def __init__(self) -> None:
        self.tables: list[tuple[str, dict[str, list[Any]], str]] = []

    def log_table(self, run_id: str, data: dict[str, list[Any]], artifact_file: str) -> None:
        self.tables.append((run_id, data, artifact_file))


class RecordingMlflow(MLFlowLogger):
    """Keeps metrics, settings and tables."""

    def __init__(self) -> None:
        Logger.__init__(self)
        self.metrics: list[tuple[int | None, dict[str, float]]] = []
        self.settings: list[dict[str, Any]] = []
        self.client = _Client()

    name = "recording"
    version = "0"
    save_dir = None
    run_id = "the run"

    @property
    def experiment(self) -> Any:
        return self.client

    @override
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        self.metrics.append((step, dict(metrics)))

    @override
    def log_hyperparams(self, params: Any) -> None:
        self.settings.append(dict(params))

    @override
    def finalize(self, status: str = "success") -> None:
        """Nothing is open."""

    @override
    def after_save_checkpoint(self, checkpoint_callback: Any) -> None:
        """No checkpoint is uploaded."""
