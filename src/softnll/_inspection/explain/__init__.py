"""explain: the tables, sentences and figures of an Explanation."""
