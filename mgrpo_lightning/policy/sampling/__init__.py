"""Sampler and Conversation: batching whatever waits, with a key-value cache for as long as a conversation is open."""
