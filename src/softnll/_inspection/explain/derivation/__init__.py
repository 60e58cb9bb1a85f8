"""The derivation of one row's gradient, step by step."""
