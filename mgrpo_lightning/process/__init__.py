"""How a whole process behaves: how signals stop it, and that it has one run at a time."""
