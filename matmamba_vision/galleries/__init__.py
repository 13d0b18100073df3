"""Images into galleries and out again: index, search and plan."""
