"""``mgrpo view``: a team's rollouts as the trees they are, in a browser; served on loopback or as a folder."""
