"""``mgrpo launch``: every role gets its process, a failed one is started again, and nobody is left behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from unittest.mock import Mock

import pytest

from mgrpo_lightning.commands.launch import Launch, main, shared_out, team_of
from mgrpo_lightning.errors import ConfigurationError, MgrpoError
from mgrpo_lightning.persistence.run_lock import RunLock

ROLE = """
import os, pathlib, signal, sys, time
words = sys.argv[1:]
role = words[words.index("--role") + 1]
folder = pathlib.Path(words[0])
tries = folder / f"{role}.tries"
tries.write_text((tries.read_text() if tries.exists() else "") + " ".join(words[1:]) + chr(10))
print(role, "speaks", flush=True)
behaviour = (folder / role).read_text() if (folder / role).is_file() else "end"
if behaviour == "fail" or (behaviour == "fail once" and len(tries.read_text().splitlines()) == 1):
    sys.exit(3)
if behaviour.startswith("end by "):
    os.kill(os.getpid(), int(behaviour.removeprefix("end by ")))
if behaviour == "talk":
    time.sleep(1)
    print(*["much"] * 5000, sep=chr(10))
if behaviour == "stop":
    sys.exit(75)
if behaviour == "killed":  # by its guard
    pathlib.Path(os.environ["MGRPO_STOPPED_MARK"]).touch()
    os.kill(os.getpid(), 9)
if behaviour == "deaf":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    print(role, "is deaf", flush=True)
if behaviour in ("stay", "deaf"):
    time.sleep(60)
"""


def launch(tmp_path: Path, restarts: int = 0, *options: str, resume: bool = False, **behaviour: str) -> str | None:
    for role, text in behaviour.items():
        (tmp_path / role).write_text(text)
    command = (sys.executable, "-c", ROLE, str(tmp_path))
    return Launch(["main", "searcher"], tmp_path / "run", options, resume=resume, command=command).run(restarts)


def tries(tmp_path: Path, role: str) -> list[str]:
    return (tmp_path / f"{role}.tries").read_text().splitlines()


def test_each_role_gets_a_process_with_the_options_and_a_log(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert launch(tmp_path, 0, "--config", "team.yaml") is None
    assert tries(tmp_path, "main") == ["--config team.yaml --role main"]
    assert (tmp_path / "run" / "searcher" / "log.txt").read_text() == "searcher speaks\n"
    assert sorted(capfd.readouterr().out.splitlines()) == ["main     | main speaks", "searcher | searcher speaks"]


def test_a_failure_ends_the_others_and_is_named(tmp_path: Path) -> None:
    started = time.monotonic()
    assert launch(tmp_path, main="fail", searcher="stay") == "main"
    assert time.monotonic() - started < 30


@pytest.fixture
def _sigint() -> Iterator[None]:
    """As in a terminal, also where a shell has started the tests in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_a_role_that_was_stopped_has_not_failed_and_the_launch_says_how_to_go_on(
    tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "searcher").write_text("stop")
    command = (sys.executable, "-c", ROLE, str(tmp_path))
    monkeypatch.setattr("mgrpo_lightning.commands.launch.Launch", partial(Launch, command=command))
    with pytest.raises(SystemExit) as ended:
        main(["--restarts", "2", "--config", str(root / "configs/quickstart.yaml"), f"--run.root={tmp_path}"])
    assert ended.value.code == 75
    assert re.search(r"mgrpo: searcher.* stopped. HINT: resume with --ckpt_path last.", capsys.readouterr().err)
    assert len(tries(tmp_path, "searcher")) == 1, "it is not started again"


@pytest.mark.parametrize(
    ("behaviour", "told"),
    [
        (
            "end by 9",
            "was killed by SIGKILL; its log is LOG. HINT: if nobody sent it, memory ran out: see `mgrpo fit",
        ),
        (
            "end by 11",
            "was killed by SIGSEGV; its log is LOG. HINT: read the log; then resume with --ckpt_path last.",
        ),
        ("end by 40", "was killed by signal 40; its log is LOG. HINT: read the log;"),
        ("fail", "failed with status 3; its log is LOG. HINT: read the log; then resume with --ckpt_path last."),
    ],
)
def test_a_role_that_ends_is_said_to_be_killed_or_to_have_failed(
    tmp_path: Path,
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    behaviour: str,
    told: str,
) -> None:
    (tmp_path / "searcher").write_text(behaviour)
    command = (sys.executable, "-c", ROLE, str(tmp_path))
    monkeypatch.setattr("mgrpo_lightning.commands.launch.Launch", partial(Launch, command=command))
    with pytest.raises(SystemExit) as ended:
        main(["--restarts", "1", "--config", str(root / "configs/quickstart.yaml"), f"--run.root={tmp_path}"])
    assert ended.value.code == 1
    output, errors = capfd.readouterr()
    how = told.split(";", maxsplit=1)[0]
    assert f"searcher | {how}; restarting it, 0 restarts left\n" in output
    log = str(tmp_path / "quickstart" / "searcher" / "log.txt")
    assert f"mgrpo: error: role 'searcher' {told.replace('LOG', log)}" in errors


@pytest.mark.parametrize("behaviour", ["stop", "killed"])
def test_a_role_that_stops_makes_the_others_stop(tmp_path: Path, behaviour: str) -> None:
    for role, text in {"main": "stay", "searcher": behaviour}.items():
        (tmp_path / role).write_text(text)
    started = time.monotonic()
    launched = Launch(["main", "searcher"], tmp_path / "run", [], command=(sys.executable, "-c", ROLE, str(tmp_path)))
    assert launched.run(2) is None
    assert sorted(launched.stopped) == ["main", "searcher"]
    assert time.monotonic() - started < 20


def start_launch(tmp_path: Path, root: Path, *, grace: float = 10.0, **behaviour: str) -> subprocess.Popen[str]:
    """A launch in a process of its own, whose roles have said all that they say."""
    for role, text in behaviour.items():
        (tmp_path / role).write_text(text)
    program = f"""if True:
        from functools import partial
        from mgrpo_lightning.commands import launch
        launch.GRACE = {grace}
        launch.Launch = partial(launch.Launch, command={(sys.executable, "-c", ROLE, str(tmp_path))!r})
        launch.main(["--config", {str(root / "configs/quickstart.yaml")!r}, "--run.root={tmp_path}"])
    """
    pipe = subprocess.PIPE
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}  # nobody looks for some, which takes seconds
    words = [sys.executable, "-c", program]
    process = subprocess.Popen(words, stdout=pipe, stderr=pipe, text=True, env=environment)
    assert process.stdout is not None
    lines = len(behaviour) + list(behaviour.values()).count("deaf")
    assert {process.stdout.readline().split()[-1] for _ in range(lines)} <= {"speaks", "deaf"}
    return process


@pytest.mark.usefixtures("_sigint")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_launch_that_is_told_to_end_ends_its_roles(tmp_path: Path, root: Path, number: signal.Signals) -> None:
    process = start_launch(tmp_path, root, main="stay", searcher="stay")
    process.send_signal(number)
    output, errors = process.communicate(timeout=20)
    assert process.returncode == 75
    assert output == "", "nobody holds it any more"
    assert errors == "mgrpo: main, searcher stopped. HINT: resume with --ckpt_path last.\n"


def test_roles_go_on_when_nobody_looks_on_any_more(tmp_path: Path, root: Path) -> None:
    process = start_launch(tmp_path, root, main="talk", searcher="end")
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == ""
    process.wait(timeout=20)
    log = (tmp_path / "quickstart" / "main" / "log.txt").read_text()
    assert len(log.splitlines()) == 5001, "the log has all, and the role was not kept waiting"


def test_roles_have_one_grace_together(tmp_path: Path, root: Path) -> None:
    process = start_launch(tmp_path, root, grace=6.0, main="deaf", searcher="deaf")
    started = time.monotonic()
    process.terminate()
    assert process.wait(timeout=20) == 75
    assert time.monotonic() - started < 11.9, "one after the other, they would have twice the grace"
    process.communicate()


@pytest.mark.usefixtures("_sigint")
def test_a_second_ctrl_c_ends_all_at_once(tmp_path: Path, root: Path) -> None:
    process = start_launch(tmp_path, root, grace=60.0, main="deaf", searcher="stay")
    process.send_signal(signal.SIGINT)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=20)
    assert process.returncode == 75


def test_one_launch_a_run_and_no_folder_for_a_role_without_a_name(tmp_path: Path, root: Path) -> None:
    options = ["--config", str(root / "configs/quickstart.yaml"), f"--run.root={tmp_path}"]
    lock = RunLock(tmp_path / "quickstart", "launch")
    lock.take()
    with pytest.raises(ConfigurationError, match="another launch writes into"):
        main(options)
    lock.release()
    (tmp_path / "team.yaml").write_text("model: {roles: {'../x': {}}}\nrun: {name: named}")
    with pytest.raises(MgrpoError, match=r"called '\.\./x'"):
        main(["--config", str(tmp_path / "team.yaml"), f"--run.root={tmp_path}"])
    assert not (tmp_path / "named").exists()


def test_a_failed_role_is_started_again_from_its_checkpoint_if_it_has_one(tmp_path: Path) -> None:
    (tmp_path / "run" / "main" / "checkpoints").mkdir(parents=True)
    (tmp_path / "run" / "main" / "checkpoints" / "step=000001.ckpt").touch()
    assert launch(tmp_path, 2, main="fail once", searcher="fail once") is None
    assert tries(tmp_path, "main") == ["--role main", "--role main --ckpt_path=last"]
    assert tries(tmp_path, "searcher") == ["--role searcher", "--role searcher"]
    assert launch(tmp_path, 1, main="fail", searcher="end") == "main"


def test_a_launch_resumes_the_roles_that_have_a_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "run" / "searcher" / "checkpoints").mkdir(parents=True)
    (tmp_path / "run" / "searcher" / "checkpoints" / "step=000001.ckpt").touch()
    assert launch(tmp_path, resume=True) is None
    assert tries(tmp_path, "main") == ["--role main"]
    assert tries(tmp_path, "searcher") == ["--role searcher --ckpt_path=last"]


@pytest.mark.parametrize(
    ("gpus", "of_main", "of_searcher"),
    [
        ("", "", ""),
        ("3", "3", "3"),
        ("0,1", "0", "1"),
        ("0,1,2", "0", "1,2"),
        ("a,b,2,3", "a,b", "2,3"),
    ],
)
def test_every_role_sees_gpus_of_its_own(
    tmp_path: Path, gpus: str, of_main: str, of_searcher: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", gpus)
    say = "import os, sys; print(sys.argv[-1], os.environ['CUDA_VISIBLE_DEVICES'])"
    Launch(["main", "searcher"], tmp_path, [], command=(sys.executable, "-c", say)).run(0)
    assert (tmp_path / "main" / "log.txt").read_text() == f"main {of_main}\n"
    assert (tmp_path / "searcher" / "log.txt").read_text() == f"searcher {of_searcher}\n"


def test_too_few_gpus_are_shared_in_turn() -> None:
    assert shared_out(["0", "1"], "abc") == {"a": ["0"], "b": ["1"], "c": ["0"]}


@pytest.mark.parametrize("words", [["--ckpt_path", "last"], ["--ckpt_path=last"]])
def test_going_on_is_for_the_launch_and_other_words_are_for_the_roles(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    made = Mock()
    made.return_value.run.return_value, made.return_value.stopped = None, []
    monkeypatch.setattr("mgrpo_lightning.commands.launch.Launch", made)
    options = ["--config", str(root / "configs/quickstart.yaml"), f"--run.root={tmp_path}", "--re=1"]
    main([*options, *words])
    made.assert_called_once_with(["main", "searcher"], tmp_path / "quickstart", options, resume=True)


def test_roles_and_folder_come_from_the_files_and_the_command_line(root: Path) -> None:
    files = ["--config", str(root / "configs/quickstart.yaml"), "--config", str(root / "configs/debug/fast.yaml")]
    assert team_of(files) == (["main", "searcher"], Path("runs/debug"))
    assert team_of([*files, "--run.root=here", "--run.name=there"]) == (["main", "searcher"], Path("here/there"))
    assert team_of([*files, "--run.root", "here", "--run.name", "there"])[1] == Path("here/there")
    with pytest.raises(ConfigurationError, match="HINT: give a team file"):
        team_of(["--config", str(root / "configs/debug/fast.yaml")])
