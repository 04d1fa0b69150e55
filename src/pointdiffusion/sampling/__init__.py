"""The loop down the noise levels; plans for a budget and their tuning; sequential Monte Carlo."""
