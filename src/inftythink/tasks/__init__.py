"""Problems with their graders. The laboratory's puzzles are here; each file is one family of problems."""
