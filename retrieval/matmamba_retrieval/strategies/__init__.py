"""Ways to answer a query: strategies, the gate between a small and the full width, queries by example."""
