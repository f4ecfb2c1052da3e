"""Each hard thing, once: log-probabilities, divergences, caches, hooks, shards, alignment, batches, statistics."""
