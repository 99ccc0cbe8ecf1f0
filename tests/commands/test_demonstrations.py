"""A warm start from recorded conversations: what a fit replays, and conversations that do not fit the team."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from mgrpo_lightning.commands.run_command import main
from mgrpo_lightning.protocol.actions import Action, HermesDialect, ToolCall
from mgrpo_lightning.records.journal import read_groups
from tests.support.team_file import write_team_file
from tests.support.tiny import WORDS
from tests.support.toy import ToyTask

pytestmark = pytest.mark.usefixtures("own_argv")


class Undemonstrated(ToyTask):
    """The toy task, of which nobody wrote scripts."""

    script = None  # type: ignore[assignment]


def called(name: str, **arguments: object) -> dict[str, Any]:
    return {"role": "assistant", "tool_calls": [{"function": {"name": name, "arguments": json.dumps(arguments)}}]}


def talk(role: str | None, asked: str, *said: dict[str, Any]) -> dict[str, Any]:
    """A conversation in which every call has a result that nobody will get again."""
    messages: list[dict[str, Any]] = [{"role": "system", "content": "logged"}, {"role": "user", "content": asked}]
    for message in said:
        messages += [message, *([{"role": "tool", "content": "old"}] if "tool_calls" in message else [])]
    return {"messages": messages, **({} if role is None else {"role": role})}


def answered(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": text}


MAIN = talk(None, "word 3", called("searcher", task="3"), answered(WORDS[3]))
SUB = talk("searcher", "3", called("search", query="3"), answered(WORDS[3]))


def team(folder: Path, tiny: Path, talks: Sequence[dict[str, Any]]) -> list[str]:
    path = write_team_file(folder, tiny, num_sanity_val_steps=0, max_steps=3, limit_val_batches=0)
    content = yaml.safe_load(path.read_text())
    content["data"] |= {
        "task": {"class_path": f"{__name__}.Undemonstrated"},
        "demonstrations": str(folder / "talks.jsonl"),
        "queries_per_step": 1,
    }
    path.write_text(yaml.safe_dump(content))
    (folder / "talks.jsonl").write_text("".join(json.dumps(one) + "\n" for one in talks))
    return ["--config", str(path)]


def test_a_fit_replays_the_turns_of_every_role(tmp_path: Path, tiny: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        main(["fit", *team(tmp_path, tiny, [MAIN, SUB])])
    assert f"1 of {len(WORDS)} training questions have a recorded conversation" in caplog.text
    render = HermesDialect().render
    for step in range(3):
        (group,) = read_groups(tmp_path / "runs" / "toy" / "journal" / f"step-{step:06d}.parquet")
        assert group.question.text == "word 3"
        for rollout in group.rollouts:
            (sub,) = rollout.subs
            assert rollout.scores[0].correct == rollout.scores[1].expert == 1.0
            assert [m.content for m in rollout.main.messages if m.role == "assistant"] == [
                render(Action(calls=(ToolCall("searcher", {"task": "3"}),))),
                render(Action(answer=WORDS[3])),
            ]
            assert sub.calls[0].result == f"word 3: {WORDS[3]}", "tools run again"
            assert rollout.main.messages[0].content == "main", "the team's own prompt"


@pytest.mark.parametrize(
    ("talks", "problem"),
    [
        ([MAIN], "line 1, .*message 3: it gives 'searcher' the task '3', about which there is no conversation of it"),
        (
            [talk(None, "word 3", called("visit", url="x"), answered("a"))],
            r"message 3: 'main' may not call 'visit'",
        ),
        ([talk(None, "word 3", called("search", query="3"), answered("a"))], "message 3: 'main' may not call 'search'"),
        ([talk(None, "word 3", called("searcher", query="3"), answered("a"))], "message 3: searcher has no argument"),
        ([MAIN, talk("searcher", "3", called("search"), answered("a"))], "line 2, .*search needs the argument 'query'"),
        ([MAIN, SUB, talk("reader", "3", answered("a"))], r"line 3, .*no role 'reader', but \['main', 'searcher'\]"),
        ([talk(None, "word 99", answered("a"))], "no conversation of 'main' about any of the"),
        ([MAIN, SUB, talk("searcher", "4", *[called("search", query="3")] * 4, answered("a"))], "limits.turns .* is 4"),
        ([talk(None, "word 3", answered("so much to say " * 20))], "message 3 has .* tokens, but limits.new_tokens"),
    ],
)
@pytest.mark.parametrize("dry", [True, False])
def test_a_conversation_that_does_not_fit_is_refused_before_the_first_step(
    tmp_path: Path,
    tiny: Path,
    capsys: pytest.CaptureFixture[str],
    talks: list[dict[str, Any]],
    problem: str,
    dry: bool,
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["fit", *team(tmp_path, tiny, talks), *(["--dry_run"] if dry else [])])
    assert stopped.value.code == 2
    error = " ".join(capsys.readouterr().err.split())
    assert re.search(f"mgrpo: error: .*talks.jsonl.*{problem}.*HINT", error), error
    assert not list(tmp_path.glob("runs/toy/journal/*"))


def test_a_dry_run_accepts_what_fits_and_a_policy_plays_no_conversations(
    tmp_path: Path, tiny: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = team(tmp_path, tiny, [MAIN, SUB])
    with pytest.raises(SystemExit) as stopped:
        main(["fit", *options, "--dry_run"])
    assert stopped.value.code == 0
    with pytest.raises(SystemExit) as stopped:
        main(["fit", *options, "--data.source=policy"])
    assert stopped.value.code == 2
    assert "data.source is 'policy', which does not play them. HINT" in capsys.readouterr().err


def test_roles_that_discuss_are_refused(tmp_path: Path, tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--model.roles.main.calls=[]", "--model.roles.main.discusses_with=[searcher]"]
    options += ["--model.roles.searcher.reward={format: 0.1, correct: 0.9, expert: 0, correct_main: 0}"]
    with pytest.raises(SystemExit) as stopped:
        main(["fit", *team(tmp_path, tiny, [MAIN, SUB]), *options])
    assert stopped.value.code == 2
    assert "recorded conversations cannot be replayed by roles that discuss. HINT" in capsys.readouterr().err
