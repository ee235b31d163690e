"""The parts systems are made of, one idea a file."""
