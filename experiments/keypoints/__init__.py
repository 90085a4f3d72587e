"""Keypoints whose side a match with a distant hat tells."""
