"""A gallery: read at one version, written by one process, moved to a new generation, checked and repaired."""
