"""The Python API of Nightshift."""
