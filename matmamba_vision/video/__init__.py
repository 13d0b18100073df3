"""Video: a stream watched as it comes."""
