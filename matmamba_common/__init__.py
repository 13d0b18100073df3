"""What the three packages stand on together: the base of their errors, and what settings can be."""
