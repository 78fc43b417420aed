"""Trustworthy image classification with invertible generative classifiers (IB-INN).

`ibinn.bundle.load` gives a classifier, `ibinn.client.Client` asks a server for the same answers.
Importing this package imports neither torch nor generated protobuf code.
"""

__version__ = "0.1.0"
