"""Code generated from `proto/open_inference` by `proto/generate.py`; not edited by hand."""
