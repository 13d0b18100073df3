"""Files of a gallery: its catalogue in SQLite, its vectors in segments, filters."""
