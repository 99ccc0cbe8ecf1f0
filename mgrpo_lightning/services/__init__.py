"""Models and searches behind HTTP: one client with limits, retries and kept connections, and one disk cache."""
