"""Faster passes on a CPU: unquantised copy of a small base, oneDNN matrix products, shared prefixes in decoding."""
