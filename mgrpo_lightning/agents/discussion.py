"""Play a horizontal team: equal agents that act in turn on one question and see each other's calls and results.

Each agent has its own trajectory. Its turns are its actions. The observation before a turn contains the results of its
own calls, and the calls and results of the others since its last turn. The prompt of the first agent is the question;
the prompts of later ones also contain the calls made so far. The first answer ends the discussion and is the answer of
all. An agent that breaks the protocol leaves the discussion.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack

from mgrpo_lightning.agents.agent import Agent
from mgrpo_lightning.protocol.prompts import heard


async def discuss(join: Sequence[Callable[[Sequence[str]], Agent]]) -> None:
    """Play the trajectories of all agents to the end of the discussion.

    Every trajectory ends with the team's answer or, if there is none, with a violation.

    Args:
        join: One function for each agent, in the order of their turns. It makes the agent before its first turn, from
            the texts of the calls made so far.
    """
    agents: list[Agent] = []
    unheard: list[list[str]] = [[] for _ in join]
    silent: set[int] = set()
    with ExitStack() as playing:
        while len(silent) < len(join):
            for place in (place for place in range(len(join)) if place not in silent):
                # Agents join in the order of their places, so this one has not joined yet.
                if place == len(agents):
                    agents.append(join[place](unheard[place]))
                    playing.enter_context(agents[place].playing())
                else:
                    agents[place].observe(unheard[place])
                unheard[place] = []
                action = await agents[place].turn()
                if action is None:  # it broke a format rule
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
