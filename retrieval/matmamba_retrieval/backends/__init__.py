"""Galleries on engines beyond one machine: written to a Qdrant server, or to the same engine in a folder."""
