"""What every function on tensors uses: argument checks, autograd bases, views, errors."""
