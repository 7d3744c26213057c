"""Reports for people: results are set into one self-contained page."""
