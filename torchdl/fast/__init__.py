"""Faster equivalents of PyTorch's operations, apart from the code that uses them."""
