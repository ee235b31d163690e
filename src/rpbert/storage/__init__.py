"""Folders and files written whole, the manifest of a model, and the door to the hub."""
