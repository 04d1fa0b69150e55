"""Densities: by the flow, and the variational bound."""
