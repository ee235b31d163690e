"""Scores, calibration and the paired bootstrap."""
