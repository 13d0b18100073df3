"""What is done with a gallery that is there: looked into, kept whole, carried elsewhere, curated."""
