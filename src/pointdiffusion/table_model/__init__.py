"""A trained model of a table: `TableModel`, folds, search, processes, a single network."""
