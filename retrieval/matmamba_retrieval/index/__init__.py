"""FAISS indexes over prefixes, by name, and exact scores for what they find."""
