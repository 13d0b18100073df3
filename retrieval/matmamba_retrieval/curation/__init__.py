"""What a gallery says of its images: near-duplicates, votes on labels, annotations from files."""
