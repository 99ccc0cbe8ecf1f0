"""Play a team: agents, their calls of tools and sub-agents, discussions, rollouts, groups, and scores."""
