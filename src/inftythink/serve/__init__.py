"""An OpenAI-compatible server in front of a reasoner: clients see one address, the model no limit of length."""
