"""Truth in closed form: mixtures and their fits, the empirical denoiser, optimal losses."""
