"""The logits of a fused head, which are computed only when something reads them."""
