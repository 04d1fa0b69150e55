"""Diagnosis of a model's error, certificates of samplers, anomalies and explanations of rows."""
