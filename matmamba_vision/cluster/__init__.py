"""Images embedded by many machines: shards dealt to workers of a Ray cluster, and put together."""
