"""Strategies tried and measured on a gallery, and the best one chosen."""
