"""What a role is, and which roles share an adapter."""
