"""Applications, one per file. Each builds a task and its batches, evaluates the model and returns a report."""
