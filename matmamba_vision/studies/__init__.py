"""Studies: what strategies of search reach against what they spend, and a demonstration of the whole job."""
