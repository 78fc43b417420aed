"""Why an answer was given: heatmaps that add up to it, and their drawings."""
