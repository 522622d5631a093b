"""The report: one page over several runs that opens from disk, its figures as files, every trajectory to read."""
