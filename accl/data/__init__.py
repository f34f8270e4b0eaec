"""Questions: where they come from, how they are split, tokenised and drawn."""
