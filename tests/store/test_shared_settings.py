"""Roles that were started with different settings: each is told which, with both values."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from mgrpo_lightning.commands.fit import MgrpoCLI, make_cli
from mgrpo_lightning.errors import ConfigurationError
from mgrpo_lightning.store import peer_checks
from mgrpo_lightning.store.exchange import Exchange
from mgrpo_lightning.store.shared_settings import MISSING, OWN, differences, leaves, shared_settings
from tests.support.team_file import write_team_file
from tests.support.tiny import make_tiny_model


@pytest.fixture(scope="module")
def config(root: Path) -> dict[str, Any]:
    """The resolved config of a role's fit."""
    found: dict[str, Any] = {}

    class Parsed(BaseException):
        pass

    with pytest.MonkeyPatch.context() as patch:

        def stop(cli: MgrpoCLI) -> None:
            found.update(cli.config["fit"].as_dict())
            raise Parsed

        patch.setattr("sys.argv", ["mgrpo"])
        patch.setattr(MgrpoCLI, "before_instantiate_classes", stop)
        files = ["--config", str(root / "configs/quickstart.yaml"), "--config", str(root / "configs/decoupled.yaml")]
        with pytest.raises(Parsed):
            make_cli(["fit", *files, "--role=main"])
    return found


def changed(value: Any) -> Any:
    """Another value of about the same kind."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, (int, float)):
        return value + 1
    return f"{value} too" if isinstance(value, str) else "something"


def meet(store: Path, ours: dict[str, Any], theirs: dict[str, Any]) -> list[str]:
    """What each of two roles is told when they wait for each other."""
    ends = [
        Exchange(store, "main", peers=["searcher"], settings=ours),
        Exchange(store, "searcher", peers=["main"], settings=theirs),
    ]
    told = []
    for end in ends:
        with pytest.raises(ConfigurationError) as refused:
            end.until(lambda: None, "a report")
        told.append(str(refused.value))
        end.close(refused.value)
    return told


@pytest.mark.parametrize("each", [10, pytest.param(1, marks=pytest.mark.slow)])
def test_every_shared_setting_that_differs_is_told_to_both_roles(
    config: dict[str, Any], tmp_path: Path, each: int
) -> None:
    ours = shared_settings(config)
    assert {
        "run.seed",
        "trainer.max_steps",
        "data.queries_per_step",
        "data.schedule",
    } <= ours.keys()
    assert {"model.roles.searcher.lag", "data.task.hops"} <= ours.keys()
    assert "data.validation.questions" in ours
    for number, (key, value) in enumerate(ours.items()):
        theirs = {**ours, key: changed(value)}
        assert differences(ours, theirs) == [(key, value, theirs[key])]
        if number % each == 0 or key in ("run.seed", "trainer.max_steps"):
            for text in meet(tmp_path / f"{number}", ours, theirs):
                assert re.search(rf"\b{re.escape(key)} is ", text)
                assert text.count(" for 'main'") == text.count(" for 'searcher'") == 1


def test_a_setting_that_may_differ_is_one_of_a_config_and_has_a_reason(config: dict[str, Any]) -> None:
    keys = [*leaves(config), "config", "model.local_roles", "data.store", "data.journal"]
    keys += ["trainer.default_root_dir"]  # linked ones, which a parser fills in last
    for pattern, reason in OWN.items():
        assert any(re.fullmatch(pattern, key) for key in keys), pattern
        assert reason


def test_a_setting_that_only_one_role_has_differs_too(tmp_path: Path) -> None:
    for text in meet(tmp_path / "store", {"a": 1, "new": None}, {"a": 1}):
        assert "new is " in text
        assert "null" in text
        assert MISSING in text


def test_settings_of_an_earlier_life_are_none_of_it_and_those_of_a_living_peer_that_came_first_are(
    tmp_path: Path,
) -> None:
    store = tmp_path / "store"
    Exchange(store, "searcher", peers=["main"], settings={"seed": 0}).close()
    main = Exchange(store, "main", peers=["searcher"], settings={"seed": 1}, on_loss="wait")
    looks = iter([None] * 5 + ["there"])
    assert main.until(lambda: next(looks), "a report") == "there"
    searcher = Exchange(store, "searcher", peers=["main"], settings={"seed": 1})
    looks = iter([None] * 5 + ["there"])
    assert main.until(lambda: next(looks), "a report") == "there"
    main.close()
    again = Exchange(store, "main", peers=["searcher"], settings={"seed": 2}, on_loss="wait")
    with pytest.raises(ConfigurationError, match="seed is 2 for 'main' and 1 for 'searcher'"):
        again.until(lambda: None, "a report")  # the searcher says nothing; it beats
    again.close()
    searcher.close()


def test_living_roles_that_wait_for_different_things_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peer_checks, "STUCK", 0.3)
    looked = peer_checks.Deadlock("main")
    for waits in ({"searcher": None, "editor": "b"}, {"searcher": "a", "editor": "b"}, {}):
        looked.look("a", waits)
        time.sleep(0.35)
        looked.look("a", waits)
    ends = [Exchange(tmp_path / "store", role, peers=[peer]) for role, peer in (("main", "reader"), ("reader", "main"))]
    ends[1].at(waits_for="a call")
    with pytest.raises(
        ConfigurationError, match="the roles wait for each other: 'main' for a report, 'reader' for a call"
    ):
        ends[0].until(lambda: None, "a report")
    for end in ends:
        end.close()


@pytest.mark.slow
def test_roles_of_different_seeds_end_within_a_minute_and_say_both(tmp_path: Path, root: Path) -> None:
    team = write_team_file(tmp_path, make_tiny_model(tmp_path / "tiny"))
    pipe = subprocess.PIPE
    words = [sys.executable, "-m", "mgrpo_lightning", "fit", "--config", str(team), "--data.peers.on_loss=wait"]
    fits = [
        subprocess.Popen([*words, f"--run.seed={seed}", "--role", role], cwd=root, stderr=pipe, stdout=pipe, text=True)
        for seed, role in enumerate(("main", "searcher"))
    ]
    for fit in fits:
        _, told = fit.communicate(timeout=300)
        assert fit.returncode == 2
        assert "run.seed is " in told
        assert re.search(r"0 for 'main'.*1 for 'searcher'|1 for 'searcher' and 0 for 'main'", told)
