"""Who may call, what they may do, how much, and over which wire."""
