"""Faster equivalents of PyTorch's operations, kept apart from the code that uses them."""
