"""Where a model's error comes from, certificates of samplers, odd rows."""
