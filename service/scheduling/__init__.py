"""What is taken on, in which order it is computed, and what is computed together."""
