"""The controlled experiments of ``docs/experiments.md``: a match between two distant places.

Each of `video`, `boxes` and `keypoints` has the same four modules: ``task`` draws the data,
``plan`` lists the arms, ``trial`` trains and measures one, ``report`` draws the page's pictures.
"""
