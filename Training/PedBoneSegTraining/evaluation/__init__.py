"""How good a segmentation is: the measures, and the scoring of a model on a data set."""
