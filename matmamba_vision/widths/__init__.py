"""What the widths of a checkpoint are worth, which one fits a budget, and one as a model of its own."""
