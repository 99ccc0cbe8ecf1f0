"""Silence advertisements and wrong advice of Lightning, PEFT and transformers, and progress bars in a file."""

from __future__ import annotations

import logging
import sys
import warnings

from transformers.utils import logging as transformers_logging

from mgrpo_lightning.callbacks import CollapseWarning

ADVERTISERS = ("lightning.pytorch.utilities.rank_zero", "lightning.fabric.utilities.rank_zero")
"""Loggers through which Lightning advertises its other products."""
_usual_format = warnings.formatwarning


def quiet() -> None:
    """Filter out advertisements and advice that is wrong for a team; show no bars where nobody watches them.

    A ``CollapseWarning`` is shown as one line without the place in the code.
    """
    for message in (
        "Using ModelCheckpoint with manual optimization",  # a team checkpoints after the optimizer step, on purpose
        "You're resuming from a checkpoint that ended before the epoch ended",  # the data resume from the step alone
        ".*isinstance.treespec, LeafSpec.. is deprecated",  # lightning 2.6 with torch 2.13
        "The PEFT config's .base_model_name_or_path. was renamed",  # saved adapters carry the team file's name
        ".is_gradient_checkpointing. is deprecated",  # peft 0.21 with transformers 5.23
        "It is recommended to use `self.log",  # logged values are already equal on all ranks
        "Be aware that when using `ckpt_path`, callbacks used",  # a replay needs none of them
        "Checkpoint directory .* exists and is not empty",  # a resumed run writes where it wrote before
    ):
        warnings.filterwarnings("ignore", message=message)
    for name in ADVERTISERS:
        logging.getLogger(name).addFilter(_no_advertisement)
    if not sys.stderr.isatty():
        transformers_logging.disable_progress_bar()  # bars of downloads and of loading weights: lines in a log file
    warnings.formatwarning = _format


def _no_advertisement(record: logging.LogRecord) -> bool:
    text = record.getMessage()
    return "Tip:" not in text and not text.startswith("TPU available: False")


def _format(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    if issubclass(category, CollapseWarning):
        return f"mgrpo: warning: {message}\n"
    return _usual_format(message, category, filename, lineno, line)
