"""Evaluation: run tasks through a reasoner, grade, and tell figures that one can trust."""
