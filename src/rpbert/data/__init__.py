"""Readers, word splitting, alignment and images: from any source to `Post` to `Batch`."""
