"""Thin doors to the core: command line and reports."""
