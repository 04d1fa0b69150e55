"""A trained model of points: its flow under conditions, its file, averages of models."""
