"""What builds the embedded model from nothing but the world."""
