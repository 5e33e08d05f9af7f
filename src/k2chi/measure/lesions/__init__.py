"""Lesions: a list with sizes, what is left out and why, and numbers that describe each on χ.

Numbers to look at, not diagnoses: no class is assigned anywhere here.
"""
