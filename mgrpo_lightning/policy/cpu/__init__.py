"""What only a CPU needs: an unquantised copy of a small base, and products of linear layers by oneDNN."""
