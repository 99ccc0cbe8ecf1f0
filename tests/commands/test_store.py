"""``mgrpo store``: who writes, who lives, where they stand, what is damaged."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from mgrpo_lightning.commands.store import beating, examine, main
from mgrpo_lightning.errors import DataError
from mgrpo_lightning.records.trajectory import Key
from mgrpo_lightning.store.arrow_files import segments
from mgrpo_lightning.store.disk import Disk
from mgrpo_lightning.store.record import Record
from mgrpo_lightning.store.writer import StoreWriter


def call(step: int) -> Record:
    return Record("delegations", "train", Key(step, 0, 0, 1), "searcher", text="find it", parent=0)


def test_each_writer_is_told_with_its_step_and_records(tmp_path: Path) -> None:
    root = tmp_path / "store"
    StoreWriter(root, "main").publish([call(0)])
    writer = StoreWriter(root, "main")
    writer.publish([call(3), call(4)])
    writer.beat(step=4, waits_for="searcher")
    StoreWriter(root, "searcher")
    main_status, searcher = examine(root)
    assert (main_status.name, main_status.incarnation, main_status.step) == ("main-0", 2, 4)
    assert main_status.records == {"delegations": 3}
    assert main_status.alive is not None
    assert main_status.alive.state == {"step": 4, "waits_for": "searcher"}
    assert (searcher.name, searcher.records, searcher.step, searcher.problems) == ("searcher-0", {}, -1, [])


def test_a_beat_is_a_sign_of_life_whatever_the_clocks_say(tmp_path: Path) -> None:
    root = tmp_path / "store"
    living, _ = StoreWriter(root, "main"), StoreWriter(root, "searcher")
    before = examine(root)
    beats = threading.Timer(0.05, living.beat)
    beats.start()
    assert beating(root, before, 0.3) == {"main-0"}
    beats.join()


def test_the_command_prints_a_table_and_fails_on_damage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "run" / "store"
    writer = StoreWriter(root, "main")
    writer.publish([call(0)])
    writer.publish([call(1)])
    main([str(tmp_path / "run"), "--wait", "0"])
    assert "all files are complete" in capsys.readouterr().out
    path = writer.folder / segments(Disk(), writer.folder)[0].name
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(SystemExit, match="1"):
        main([str(root), "--wait", "0"])
    assert path.name in (out := capsys.readouterr().out)
    assert "1 problems: restart the roles" in out
    path.unlink()
    (status,) = examine(root)
    assert status.problems == [f"{writer.folder}: records 0 to 0 are missing"]


def test_a_folder_without_a_store_is_told(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("run: {}")
    with pytest.raises(DataError, match=r"is not a store: it has .config\.yaml."):
        main([str(tmp_path)])


@pytest.mark.parametrize("words", [["store", "RUN", "--wait", "0"], ["launch", "--help"], ["view", "--help"]])
def test_a_command_that_answers_without_a_model_needs_no_torch(tmp_path: Path, words: list[str]) -> None:
    StoreWriter(tmp_path / "store", "main")
    given = ["mgrpo", *(str(tmp_path) if word == "RUN" else word for word in words)]
    code = f"""if True:
        import atexit, os, sys
        atexit.register(lambda: "torch" in sys.modules and os._exit(1))
        sys.argv = {given}
        from mgrpo_lightning.commands.main import main
        main()
    """
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_a_store_that_is_not_there_is_told(tmp_path: Path) -> None:
    found = subprocess.run(
        [sys.executable, "-m", "mgrpo_lightning", "store", str(tmp_path / "nowhere")], capture_output=True, text=True
    )
    assert found.returncode == 2
    assert "mgrpo: error: there is no store at" in found.stderr


@pytest.mark.parametrize(
    "words",
    [["store", "RUN", "--wait", "0"], ["launch", "--help"], pytest.param(["fit", "--help"], marks=pytest.mark.slow)],
)
def test_who_reads_no_further_ends_a_command_without_a_traceback(tmp_path: Path, words: list[str]) -> None:
    StoreWriter(tmp_path / "store", "main")
    reads, writes = os.pipe()
    os.close(reads)  # as `head` does when it has seen enough
    command = [sys.executable, "-m", "mgrpo_lightning", *(str(tmp_path) if word == "RUN" else word for word in words)]
    found = subprocess.run(command, stdout=writes, stderr=subprocess.PIPE, text=True)
    os.close(writes)
    assert found.returncode != 120, "what the interpreter ends with when it cannot flush"
    assert found.stderr == ""
