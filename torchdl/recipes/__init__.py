"""Applications that train, measure and return what they found: one file an area, nothing printed, no file written."""
