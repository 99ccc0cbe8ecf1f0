"""Settings of a whole process: how signals stop it, that it has one run, and how its memory is freed."""
