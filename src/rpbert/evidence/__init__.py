"""What a system sees of an image, one file a kind: its settings, its reader, its encoder."""
