"""The controlled experiments of ``docs/experiments.md``: a match between two distant places.

Each of `video`, `boxes` and `keypoints` draws the data, lists the arms, and trains one.
"""
