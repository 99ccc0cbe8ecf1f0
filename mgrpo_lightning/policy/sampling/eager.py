"""The schedule ``eager``: waiting turns join the running batch after each slice, while other agents run tools.

New turns join the batch between slices of ``SLICE`` decoding steps.
"""

from __future__ import annotations

from mgrpo_lightning.policy.sampling.agent_tasks import AgentTasks
from mgrpo_lightning.policy.sampling.model_thread import ModelThread


async def play_eagerly(agents: AgentTasks, model: ModelThread) -> None:
    """Compute the turns of the agents as they come, until all agents have ended.

    Args:
        agents: The agents, which have started already.
    """
    while agents.tasks:
        await model.wait(agents.change())
        for engine, requests in agents.take():
            agents.deliver(await model.one_slice(engine, requests))
            if engine.busy:
                agents.changed.set()  # unfinished turns go on with the next slice, whether or not an agent does
