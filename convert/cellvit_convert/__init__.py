"""PyTorch <-> Orbax conversion without torch."""
