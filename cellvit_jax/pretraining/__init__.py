"""What a network can learn before, or without, annotations."""
