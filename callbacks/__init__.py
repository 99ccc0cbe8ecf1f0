"""Lightning callbacks of a run: checkpoint, journal, adapter export, progress, alarm, stop, run lock, final tables."""

from mgrpo_lightning.callbacks.adapter_export import AdapterExport
from mgrpo_lightning.callbacks.best_checkpoint import BestCheckpoint
from mgrpo_lightning.callbacks.collapse_alarm import CollapseAlarm, CollapseWarning
from mgrpo_lightning.callbacks.distributions import Distributions
from mgrpo_lightning.callbacks.graceful_stop import GracefulStop
from mgrpo_lightning.callbacks.predictions import Predictions
from mgrpo_lightning.callbacks.progress import TeamProgress
from mgrpo_lightning.callbacks.results import Results
from mgrpo_lightning.callbacks.rollout_log import RolloutLog
from mgrpo_lightning.callbacks.run_lock_callback import RunLockCallback
from mgrpo_lightning.callbacks.team_checkpoint import TeamCheckpoint

__all__ = [
    "AdapterExport",
    "BestCheckpoint",
    "CollapseAlarm",
    "CollapseWarning",
    "Distributions",
    "GracefulStop",
    "Predictions",
    "Results",
    "RolloutLog",
    "RunLockCallback",
    "TeamCheckpoint",
    "TeamProgress",
]
