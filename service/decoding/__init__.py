"""Bytes of strangers to the network's pixels, where a fault of a decoder cannot hurt the server.

Importing this package imports nothing: the decoder processes need little of it.
"""
