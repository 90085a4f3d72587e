"""The tables of ``tools/benchmark.py``, each measured by a module."""
