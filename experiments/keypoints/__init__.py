"""Keypoints: gloves whose side a match with the hat tells, and what the page says."""
