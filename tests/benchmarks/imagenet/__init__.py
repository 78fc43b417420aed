"""Speed, memory and agreement at the size of ImageNet; `tests.benchmarks.bench` runs it."""
