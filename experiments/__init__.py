"""The controlled experiment of ``docs/experiments.md``: reach, and what a block does with it."""
