"""Boxes: things whose class is whether they match a sign far away, and what the page says."""
