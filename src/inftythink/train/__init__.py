"""Training on InftyThink instances. ``sft.train_sft`` is the way in; ``settings`` has what can be set."""
