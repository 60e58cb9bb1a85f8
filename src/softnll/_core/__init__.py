"""The definition of the losses, for every array library: options, targets, the Problem, the equation, linear losses."""
