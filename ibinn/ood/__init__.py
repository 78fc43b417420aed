"""Out-of-distribution statistics, tests and their combination."""
