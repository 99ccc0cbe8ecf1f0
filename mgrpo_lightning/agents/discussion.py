"""A horizontal team: equal agents and one shared transcript. They speak in turn, and nobody leads.

Each agent has a token sequence of its own, as every trajectory has: its turns are its actions, and before each of them
stands what came of its own calls and what the others have done since, word for word. Who speaks first finds the
question, who speaks later also what has been done so far. The first answer is the team's and ends the discussion; an
agent that breaks the protocol has left it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack

from mgrpo_lightning.agents.agent import Agent
from mgrpo_lightning.protocol.prompts import heard


async def discuss(join: Sequence[Callable[[Sequence[str]], Agent]]) -> None:
    """Play the trajectories of all agents to the end of the discussion.

    Every trajectory ends with the team's answer or, where there is none, with a broken rule.

    Args:
        join: Makes each agent, when it is its turn for the first time; it is given what has been done so far.
    """
    agents: list[Agent] = []
    unheard: list[list[str]] = [[] for _ in join]
    silent: set[int] = set()
    with ExitStack() as playing:
        while len(silent) < len(join):
            for place in (place for place in range(len(join)) if place not in silent):
                if place == len(agents):
                    agents.append(join[place](unheard[place]))
                    playing.enter_context(agents[place].playing())
                else:
                    agents[place].observe(unheard[place])
                unheard[place] = []
                action = await agents[place].turn()
                if action is None:
                    silent.add(place)
                    continue
                if action.answer is not None:
                    for agent in agents:
                        agent.trajectory.answer = action.answer
                    return
                calls = await agents[place].call(action)
                for other, entries in enumerate(unheard):
                    said = [call.result if other == place else heard(agents[place].seat.role, call) for call in calls]
                    entries += said
