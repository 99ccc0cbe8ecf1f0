"""BestCheckpoint: keep the checkpoint and the adapters with the best held-out score, of the team and of each role."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from typing_extensions import override

from mgrpo_lightning.callbacks.adapter_export import export_role, seats_of
from mgrpo_lightning.persistence.checkpoints import BEST, best_path

if TYPE_CHECKING:
    from mgrpo_lightning.modules.team import TeamModule

TEAM = "team"
ROLES = "roles"


class BestCheckpoint(Callback):
    """Keeps the best state of a fit beside the last one, by the score of the held-out questions.

    After each validation of a fit, the one at step 0 too, a score above all earlier ones replaces what is kept:

    * of the team: ``best/checkpoint.ckpt`` and ``best/adapters/ROLE``. ``--ckpt_path best`` names this checkpoint.
    * of each trained role, by its own mean reward (``val/ROLE/reward``): ``best/roles/ROLE/checkpoint.ckpt``, which
      holds the whole team of that step, and ``best/roles/ROLE/adapter``. ``--ckpt_path best:ROLE`` names it.

    A validation that could not decide a score is passed over. A run always resumes from its last checkpoint.

    Args:
        score: Score of the team, ``val/accuracy`` and so on; None keeps nothing.
        dirpath: Folder of what is kept; None is ``best`` in the run folder. ``--ckpt_path best`` looks there only.
    """

    def __init__(
        self,
        score: Literal["accuracy", "exact_match", "f1", "gaia"] | None = "accuracy",
        dirpath: str | None = None,
    ) -> None:
        self.score = score
        self.dirpath = None if dirpath is None else str(Path(dirpath).absolute())
        self.best: dict[str, dict[str, dict[str, float]]] = {TEAM: {}, ROLES: {}}
        """Step and score of what is kept: ``{"team": {"accuracy": ...}, "roles": {ROLE: ...}}``."""

    def folder(self, trainer: Trainer) -> Path:
        """Return the folder of what is kept.

        Args:
            trainer: Trainer of the run, for its ``default_root_dir``.
        """
        return Path(self.dirpath or Path(trainer.default_root_dir) / BEST)

    @override
    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best = state_dict["best"]

    @override
    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn != TrainerFn.FITTING or self.score is None:
            return
        module = cast("TeamModule", pl_module)
        values = trainer.callback_metrics
        better = self._better(TEAM, self.score, values.get(f"val/{self.score}"), trainer.global_step)
        # A list, because all scores are updated before the first checkpoint is saved: each holds them.
        roles = [
            role
            for role in module.trained_roles
            if self._better(ROLES, role, values.get(f"val/{role}/reward"), trainer.global_step)
        ]
        if better:
            self._keep(trainer, module, {f"adapters/{role}": role for role in module.adapters})
        for role in roles:
            self._keep(trainer, module, {"adapter": role}, of=role)

    def _better(self, part: str, name: str, value: Any, step: int) -> bool:
        """Note a score if it is above all earlier ones."""
        best = self.best[part].get(name)
        # Every rank gets the same value, so all take part in saving.
        if value is None or (best is not None and float(value) <= best["score"]):
            return False
        self.best[part][name] = {"step": step, "score": float(value)}
        return True

    def _keep(self, trainer: Trainer, module: TeamModule, exports: dict[str, str], of: str | None = None) -> None:
        """Replace the checkpoint and the exported adapters, each of them atomically."""
        path = best_path(self.folder(trainer), of)
        if trainer.is_global_zero:
            seats = seats_of(trainer, module)
            for name, role in exports.items():
                export_role(trainer, module, seats, role, path.parent / name)
        trainer.save_checkpoint(path)
