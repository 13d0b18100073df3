"""Vectors that came from elsewhere and go elsewhere: NumPy, Parquet, other galleries, Embedding Atlas."""
