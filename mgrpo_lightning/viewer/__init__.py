"""``mgrpo view``: show a team's rollouts as trees in a browser, from a local server or an exported folder."""
