"""Other libraries: a spaCy component, and converters of published checkpoints."""
