"""The experiments: their registry, runner, records and tables of results; not part of the package."""
