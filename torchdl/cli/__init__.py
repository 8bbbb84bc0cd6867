"""Command lines: options, run folders, one-sentence errors. The only part of torchdl that prints by default."""
