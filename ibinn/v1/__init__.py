"""Code generated from `proto/ibinn/v1` by `proto/generate.py`; not edited by hand."""
