"""Readouts → k-space → coil and combined images. To add a method: one file, and one name here."""
