"""Video files and folders of frames: probing, reading of exact frames, and writing.

Importing this package does not import PyAV; reading and probing do.
"""
