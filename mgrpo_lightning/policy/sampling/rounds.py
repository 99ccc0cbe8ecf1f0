"""The schedule ``rounds``: compute a batch only when every agent waits, so that a run is bitwise reproducible.

The content and order of each batch then do not depend on how long tools take, and a run is bitwise reproducible.
"""

from __future__ import annotations

import asyncio

from mgrpo_lightning.policy.sampling.agent_tasks import AgentTasks
from mgrpo_lightning.policy.sampling.engine import Link
from mgrpo_lightning.policy.sampling.model_thread import ModelThread


async def play_rounds(agents: AgentTasks, model: ModelThread, link: Link | None) -> None:
    """Compute the turns of the agents in rounds, until all agents have ended.

    Args:
        agents: The agents, which have started already.
        link: Exchange with agents of other processes, once a round.
    """
    while agents.tasks:
        await _all_idle(agents, model)
        if link is not None and agents.tasks:
            await model.wait(link.meet())
            await _all_idle(agents, model)  # calls from elsewhere start agents, and answers wake them up
        for engine, requests in agents.take():
            agents.deliver(await model.whole_turns(engine, requests))


async def _all_idle(agents: AgentTasks, model: ModelThread) -> None:
    """Wait until every agent waits for a turn or for its children: the tools of the round have ended."""
    # Let the callbacks of what was just delivered run first, so that its agents do not look idle.
    await asyncio.sleep(0)
    while not agents.all_idle:
        await model.wait(agents.change())
