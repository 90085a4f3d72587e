"""Boxes with two classes: they match a distant sign, or not."""
