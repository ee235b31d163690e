"""Every setting of a run: typed, documented where it stands, unknown keys refused."""
