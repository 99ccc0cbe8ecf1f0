from mgrpo_lightning.agents.play import PlayRequest
from mgrpo_lightning.protocol.tree import render
from mgrpo_lightning.records.trajectory import Call, Key, Message, Rollout, Trajectory
from tests.agents.fakes import answer, call, duo, make_team, question

EXPECTED = """\
main: Which?
+- thought: I ask twice.
+- searcher(task="peak of\\nFrance")
|  +- searcher: peak of France
|  |  +- search(query="peak of\\nFrance")
|  |  |      page of peak of
|  |  |      France
|  |  +- thought: found
|  |  +- answer: Mont Blanc
+- searcher(task="b")
|  +- searcher: b
|  |  +- invalid: no action
|  |  +- answer: none
|      error: searcher gave no answer.
+- answer: Mont Blanc"""


def test_the_tree_shows_turns_calls_pages_and_what_went_wrong() -> None:
    def main(task: str, turn: int, order: tuple[int, ...]) -> str:
        calls = call("searcher", task="peak of\nFrance") + call("searcher", task="b")
        return f"I ask twice.{calls}" if turn == 0 else answer("Mont Blanc")

    def searcher(task: str, turn: int, order: tuple[int, ...]) -> str:
        if task == "b":
            return ""
        return call("search", query=task) if turn == 0 else f"found {answer('Mont Blanc')}"

    team, _ = make_team(duo(), {"main": main, "searcher": searcher})
    assert render(team.play(PlayRequest([question()], step=0, rollouts=1)).groups[0].rollouts[0]) == EXPECTED


def test_of_a_long_result_the_head_is_drawn() -> None:
    page = Call(0, "visit", {"url": "u"}, "\n".join("abcdefghijkl"))
    main = Trajectory("main", Key(0, 0, 0, 0), "q", messages=[Message("assistant", "")], calls=[page], answer="x")
    drawn = render(Rollout(main)).splitlines()
    assert drawn[2:11] == [*(f"|      {letter}" for letter in "abcdefgh"), "|      ... 4 more lines"]
