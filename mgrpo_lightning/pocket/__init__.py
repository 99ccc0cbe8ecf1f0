"""The embedded model: weights, tokenizer and the command that builds them from nothing but the world."""
