"""The linear layer and its loss, on tensors."""
