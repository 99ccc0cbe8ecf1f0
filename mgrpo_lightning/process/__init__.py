"""Settings of a whole process: how signals stop it, and that it has one run."""
