"""Video files and folders of frames: their lists, what is in them, and reading exact frames.

Importing this package does not import PyAV; reading and probing do.
"""
