"""The whole loop on real data, on one machine: ``python -m ibinn.loop`` (also ``make loop``)."""
