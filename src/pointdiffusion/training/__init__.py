"""Losses, noise levels, the LightningModule, checkpoints, and `fit`."""
