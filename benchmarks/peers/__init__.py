"""vidsr beside other ways to do the same, each in its own virtual environment; see benchmarks/README.md."""
