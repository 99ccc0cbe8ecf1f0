"""Faster linear layers on a CPU: an unquantised copy of a small base, and matrix products by oneDNN."""
