"""Other RL engines drive the protocol's machine: their servers sample, their trainers learn from every round."""
