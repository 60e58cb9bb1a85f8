"""token_stats."""
