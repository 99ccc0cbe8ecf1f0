"""``mgrpo launch``: every role gets its process, a failed one is started again, and nobody is left behind."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from unittest.mock import Mock

import pytest

from mgrpo_lightning.errors import ConfigurationError
from mgrpo_lightning.launch import Launch, main, shared_out, team_of

ROLE = """
import pathlib, sys, time
words = sys.argv[1:]
role = words[words.index("--role") + 1]
folder = pathlib.Path(words[0])
tries = folder / f"{role}.tries"
tries.write_text((tries.read_text() if tries.exists() else "") + " ".join(words[1:]) + chr(10))
print(role, "speaks", flush=True)
behaviour = (folder / role).read_text() if (folder / role).is_file() else "end"
if behaviour == "fail" or (behaviour == "fail once" and len(tries.read_text().splitlines()) == 1):
    sys.exit(3)
if behaviour == "stop":
    sys.exit(75)
if behaviour == "stay":
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
def _sigterm() -> Iterator[None]:
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.mark.usefixtures("_sigterm")
def test_a_role_that_was_stopped_has_not_failed_and_the_launch_says_how_to_go_on(
    tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "searcher").write_text("stop")
    command = (sys.executable, "-c", ROLE, str(tmp_path))
    monkeypatch.setattr("mgrpo_lightning.launch.Launch", partial(Launch, command=command))
    with pytest.raises(SystemExit) as ended:
        main(["--restarts", "2", "--config", str(root / "configs/quickstart.yaml"), f"--run.root={tmp_path}"])
    assert ended.value.code == 75
    assert "mgrpo: searcher stopped. HINT: go on with --ckpt_path last." in capsys.readouterr().err
    assert len(tries(tmp_path, "searcher")) == 1, "it is not started again"


def test_a_launch_that_is_told_to_end_ends_its_roles(tmp_path: Path, root: Path) -> None:
    for role in ("main", "searcher"):
        (tmp_path / role).write_text("stay")
    program = f"""if True:
        from functools import partial
        from mgrpo_lightning import launch
        launch.Launch = partial(launch.Launch, command={(sys.executable, "-c", ROLE, str(tmp_path))!r})
        launch.main(["--config", {str(root / "configs/quickstart.yaml")!r}, "--run.root={tmp_path}"])
    """
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert {process.stdout.readline().split()[-1] for _ in range(2)} == {"speaks"}
    process.terminate()
    assert process.wait(timeout=20) == 75
    assert process.stdout.read() == "", "nobody holds it any more"
    process.stdout.close()


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


@pytest.mark.usefixtures("_sigterm")
@pytest.mark.parametrize("words", [["--ckpt_path", "last"], ["--ckpt_path=last"]])
def test_going_on_is_for_the_launch_and_other_words_are_for_the_roles(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    made = Mock()
    made.return_value.run.return_value, made.return_value.stopped = None, []
    monkeypatch.setattr("mgrpo_lightning.launch.Launch", made)
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
