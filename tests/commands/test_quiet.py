"""Nothing of Lightning's advertisements, no bars in a file, and warnings that a user can read."""

from __future__ import annotations

import io
import logging
import sys
import warnings
from collections.abc import Iterator

import pytest
from lightning.pytorch.trainer.connectors import callback_connector
from lightning.pytorch.trainer.connectors.logger_connector import logger_connector
from lightning.pytorch.utilities import rank_zero_info
from transformers.utils import logging as transformers_logging

from mgrpo_lightning.callbacks import CollapseWarning
from mgrpo_lightning.commands.quiet import quiet


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    usual, active = warnings.formatwarning, transformers_logging.is_progress_bar_enabled()
    yield
    warnings.formatwarning = usual
    if active:
        transformers_logging.enable_progress_bar()


def test_lightnings_advertisements_are_not_shown(caplog: pytest.LogCaptureFixture) -> None:
    """Each text that Lightning has for its own products, as its source has it."""
    quiet()
    with caplog.at_level(logging.INFO):
        for module in (callback_connector, logger_connector):
            assert module.__file__ is not None
            with open(module.__file__, encoding="utf-8") as source:
                assert "Tip: For seamless" in source.read(), "another text: the filter must know it"
        rank_zero_info("\N{ELECTRIC LIGHT BULB} Tip: For seamless cloud uploads and versioning, try litmodels")
        rank_zero_info("TPU available: False, using: 0 TPU cores")
        rank_zero_info("GPU available: False")
    assert caplog.messages == ["GPU available: False"]


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("stderr", [io.StringIO(), _Terminal()], ids=["file", "terminal"])
def test_bars_are_for_a_terminal(monkeypatch: pytest.MonkeyPatch, stderr: io.StringIO) -> None:
    transformers_logging.enable_progress_bar()
    monkeypatch.setattr(sys, "stderr", stderr)
    quiet()
    for _ in transformers_logging.tqdm(range(3), desc="Loading weights", file=stderr):
        pass
    assert ("Loading weights" in stderr.getvalue()) == stderr.isatty()


def test_a_warning_of_the_alarm_is_one_line_without_a_place_in_the_code() -> None:
    quiet()
    shown = warnings.formatwarning(CollapseWarning("main is silent. HINT: wake it."), CollapseWarning, "a.py", 3)
    assert shown == "mgrpo: warning: main is silent. HINT: wake it.\n"
    assert "DeprecationWarning" in warnings.formatwarning("old", DeprecationWarning, "a.py", 3)
