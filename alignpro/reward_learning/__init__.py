"""Eq. 1: a reward learned from labelled pairs, and what optimising it does."""
