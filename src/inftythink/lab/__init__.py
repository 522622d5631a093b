"""The laboratory: the papers' experiments in minutes on a laptop, with a small model and puzzles with proofs."""
