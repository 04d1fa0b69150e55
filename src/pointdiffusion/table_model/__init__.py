"""A trained model of a table: folds, search."""
