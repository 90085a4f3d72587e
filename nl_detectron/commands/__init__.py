"""The code of the scripts, one module per command."""
