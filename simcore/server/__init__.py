"""One simulated server: SGLang's scheduler as a model, and static batching beside it."""
