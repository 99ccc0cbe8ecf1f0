"""The embedded model: weights, tokenizer, adapters and their card; ``benchmarks.pocket`` builds them."""
