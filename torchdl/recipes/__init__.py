"""Applications, one file each: they build a training, evaluate its model and return a report. They print nothing."""
