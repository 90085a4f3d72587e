"""What is of video alone: clips and views of videos, their loaders and evaluators."""
