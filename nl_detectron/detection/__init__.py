"""What is of detection alone: loaders and evaluators of images with instances."""
