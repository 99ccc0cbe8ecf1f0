"""Services behind HTTP: one client, one way of asking again."""
