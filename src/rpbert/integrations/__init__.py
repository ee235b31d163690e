"""Other libraries' formats: spaCy, pandas, notebooks, published checkpoints."""
