"""The laboratory: what was measured, how to measure it again, and the tables of it; no part of the package."""
