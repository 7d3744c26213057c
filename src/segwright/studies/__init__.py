"""Studies: many runs from one file, each trained once, and a table of them with honest statistics."""
