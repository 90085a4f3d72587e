"""Matching across space and time in clips: a miniature of the paper's Table 2."""
