"""softmax, log_softmax, logsumexp and the losses that take logits or log-probabilities, on tensors."""
