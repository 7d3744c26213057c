"""How good a model is, and how sure that is: scores of a data set, with intervals and comparisons."""
