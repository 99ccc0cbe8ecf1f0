"""Sampling of turns: batched decoding of many conversations, each with a KV cache while it is open."""
