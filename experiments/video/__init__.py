"""Clips in which two objects match or not: a miniature of the paper's Table 2."""
