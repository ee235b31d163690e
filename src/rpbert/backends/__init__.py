"""Other ways to run the same model, by name only."""
