"""Command lines: options, a run's folder, one sentence for every mistake. The only part that prints by default."""
