"""A width made for inference: packed weights, and what computes embeddings from them."""
