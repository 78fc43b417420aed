"""The models a server holds: which there are, which answers, and how another takes its place."""
