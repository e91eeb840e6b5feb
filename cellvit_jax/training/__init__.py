"""Training: losses, recipes, step, loop."""
