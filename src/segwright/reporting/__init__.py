"""Reports for people: results are read from disk and set into one self-contained page."""
