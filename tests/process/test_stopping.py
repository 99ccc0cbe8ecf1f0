"""SIGINT and SIGTERM end a command within five seconds, whatever a tool does, and it goes on without loss."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
import yaml

from mgrpo_lightning.commands.run_command import main
from mgrpo_lightning.errors import Interrupted
from mgrpo_lightning.process.guard import KILL
from mgrpo_lightning.process.stopping import GRACE, LAST, unwrapped
from tests.support.started import Started
from tests.support.team_file import write_team_file

HOLDS = "threading.Thread(target=re.fullmatch, args=(r'(a+)+b', 'a' * 40)).start()"
SLACK = 1.5
"""Seconds that a loaded machine may take on top."""


@pytest.fixture(autouse=True)
def _sigint() -> Iterator[None]:
    """As in a terminal, also where a shell has started the tests in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def command(body: str, mark: Path | None = None) -> subprocess.Popen[str]:
    """A command without torch; what it does last is in the body."""
    program = f"""if True:
        import os, re, signal, sys, threading, time
        from mgrpo_lightning.errors import Interrupted
        from mgrpo_lightning.process.stopping import Stopping
        stopping = Stopping()
        stopping.start()
        print("ready", flush=True)
        {body}
    """
    environment = {**os.environ, **({"MGRPO_STOPPED_MARK": str(mark)} if mark else {})}
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def end(process: subprocess.Popen[str], *signals: signal.Signals, pause: float = 0.7) -> tuple[int, float]:
    """Status after signals, and seconds from the first."""
    time.sleep(0.3)  # for what it does last to begin
    started = time.monotonic()
    for number in signals:
        process.send_signal(number)
        time.sleep(pause if len(signals) > 1 else 0)
    process.communicate(timeout=30)
    return process.returncode, time.monotonic() - started


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_command_without_a_step_at_hand_is_interrupted_at_once(number: signal.Signals) -> None:
    code, seconds = end(command("time.sleep(60)"), number)
    assert code == 75
    assert seconds < GRACE


def test_a_step_at_hand_has_a_grace_and_a_second_signal_ends_it() -> None:
    patient = "stopping.patient = True; time.sleep(60)"
    code, seconds = end(command(patient), signal.SIGTERM)
    assert code == 75
    assert GRACE - 0.1 < seconds < GRACE + SLACK
    code, seconds = end(command(patient), signal.SIGINT, signal.SIGINT)
    assert code == 75
    assert seconds < GRACE
    code, _ = end(
        command("stopping.patient = True; time.sleep(0.8); os._exit(7 if stopping.asked else 8)"), signal.SIGINT
    )
    assert code == 7, "it ended by itself within the grace"


def test_a_thread_that_never_ends_is_not_waited_for() -> None:
    code, seconds = end(
        command("threading.Thread(target=time.sleep, args=(60,)).start(); time.sleep(60)"), signal.SIGTERM
    )
    assert code == 75
    assert LAST - 0.1 < seconds < LAST + SLACK


def test_who_waits_for_a_role_that_is_gone_ends_as_well(tmp_path: Path) -> None:
    waits = f"""from pathlib import Path
        from mgrpo_lightning.store.exchange import Exchange
        main = Exchange(Path({str(tmp_path / "store")!r}), "main", peers=["reader"], on_loss="wait")
        stopping.patient = True
        Path({str(tmp_path / "waits")!r}).touch()
        try:
            main.until(lambda: None, "a report")
        except Interrupted:
            stopping.leave(75)  # as the command does: torch would take its time to clear up"""
    process = command(waits)
    while not (tmp_path / "waits").exists():
        assert process.poll() is None
        time.sleep(0.05)
    code, seconds = end(process, signal.SIGTERM)
    assert code == 75
    assert seconds < KILL + SLACK


def test_a_tool_that_holds_the_interpreter_is_ended_from_outside_and_the_kill_is_marked(tmp_path: Path) -> None:
    process = command(f"{HOLDS}; time.sleep(60)", tmp_path / "killed")
    code, seconds = end(process, signal.SIGTERM)
    assert code == -signal.SIGKILL
    assert seconds < KILL + SLACK
    assert (tmp_path / "killed").read_text() == f"{process.pid}\n"


def test_signals_of_a_process_that_a_tool_has_forked_are_none_of_the_commands() -> None:
    fork = """child = os.fork()
        if child == 0: time.sleep(60)
        os.kill(child, signal.SIGTERM)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGTERM
        time.sleep(5.5)"""
    code, _ = end(command(fork))
    assert code == 0


def test_a_command_ends_with_the_one_that_launched_it(tmp_path: Path) -> None:
    """Also where it is a grandchild that holds the interpreter."""
    launcher = f"""if True:
        import os, subprocess, sys, time
        os.environ["MGRPO_LAUNCHER"] = str(os.getpid())
        role = "import re, threading, time; from mgrpo_lightning.process.stopping import Stopping; Stopping().start(); "
        role += "print(1, flush=True); "
        subprocess.Popen([sys.executable, "-c", role + "time.sleep(60)"])
        subprocess.Popen([sys.executable, "-c", role + {HOLDS!r}])
        os.environ.pop("MGRPO_LAUNCHER")
        os.environ |= {{"LOCAL_RANK": "1", "MGRPO_RANK_ZERO": str(os.getpid())}}
        subprocess.Popen([sys.executable, "-c", role + "time.sleep(60)"])
        time.sleep(60)
    """
    process = subprocess.Popen([sys.executable, "-c", launcher], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    # Sorted: three processes write into one pipe, and a line may come between another and its end.
    assert sorted("".join(process.stdout.readline() for _ in range(3))) == sorted("1\n" * 3)
    time.sleep(0.3)
    started = time.monotonic()
    process.kill()
    process.communicate(timeout=30)  # until nobody holds its output any more
    assert time.monotonic() - started < KILL + SLACK


class _Named:
    def __set_name__(self, owner: type, name: str) -> None:
        raise Interrupted(signal.SIGTERM)


def _while_a_class_is_made() -> None:
    type("Made", (), {"field": _Named()})


def _while_another_error_is_handled() -> None:
    try:
        raise Interrupted(signal.SIGTERM)
    finally:
        raise ValueError("half a file")


@pytest.mark.parametrize("interrupted", [_while_a_class_is_made, _while_another_error_is_handled])
def test_an_error_that_a_signal_led_to_is_the_signal(interrupted: Callable[[], None]) -> None:
    with pytest.raises(Interrupted), unwrapped():
        interrupted()
    with pytest.raises(ValueError, match="a mistake"), unwrapped():
        raise ValueError("a mistake")


@pytest.mark.parametrize(
    ("kind", "number"),
    [
        ("thread", signal.SIGTERM),
        pytest.param("thread", signal.SIGINT, marks=pytest.mark.slow),
        pytest.param("await", signal.SIGTERM, marks=pytest.mark.slow),
        pytest.param("await", signal.SIGINT, marks=pytest.mark.slow),
        pytest.param("judge", signal.SIGTERM, marks=pytest.mark.slow),
        pytest.param("judge", signal.SIGINT, marks=pytest.mark.slow),
        pytest.param("interpreter", signal.SIGTERM, marks=pytest.mark.slow),
        pytest.param("interpreter", signal.SIGINT, marks=pytest.mark.slow),
    ],
)
def test_a_fit_whose_tool_or_judge_hangs_ends_and_goes_on_without_loss(
    tmp_path: Path, tiny: Path, kind: str, number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    team = write_team_file(tmp_path, tiny, num_sanity_val_steps=0, limit_val_batches=0)
    content = yaml.safe_load(team.read_text())
    task = {"class_path": "tests.support.hanging.HangingTask", "init_args": {"kind": kind, "folder": str(tmp_path)}}
    content["data"]["task"] = task
    team.write_text(yaml.safe_dump(content))
    (tmp_path / "hang").touch()
    process = Started(["fit", "--config", str(team), "--run.name=stopped"])
    while not (tmp_path / "hangs").exists():
        assert process.poll() is None, process.said()
        time.sleep(0.05)
    started = time.monotonic()
    process.send_signal(number)
    status = process.wait(timeout=30)
    assert time.monotonic() - started < KILL + SLACK
    assert status == (-signal.SIGKILL if kind == "interpreter" else 75), process.said()
    assert (tmp_path / "runs" / "stopped" / "checkpoints" / "step=000001.ckpt").exists()
    (tmp_path / "hang").unlink()
    monkeypatch.setattr("sys.argv", ["mgrpo"])
    main(["fit", "--config", str(team), "--run.name=stopped", "--ckpt_path=last"])
    main(["fit", "--config", str(team), "--run.name=straight"])
    ours, theirs = (
        torch.load(tmp_path / "runs" / name / "checkpoints" / "step=000004.ckpt", weights_only=True)["roles"]
        for name in ("stopped", "straight")
    )
    for role, state in theirs.items():
        assert state["updates"] == 4
        assert all(torch.equal(tensor, ours[role]["adapter"][name]) for name, tensor in state["adapter"].items())
