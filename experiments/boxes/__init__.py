"""Boxes whose class is whether they match a distant sign."""
