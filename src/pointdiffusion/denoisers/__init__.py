"""Denoisers made of networks or of denoisers: preconditioned, adapted, guided, observed."""
