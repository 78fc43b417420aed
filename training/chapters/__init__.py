"""Chapters of a trust report: each measures one thing about a calibrated model.

A chapter is a module with

- a frozen dataclass of its figures, which goes into ``report.json`` as it is;
- ``measure(material) -> that dataclass | NotMeasured``;
- ``figures(result) -> dict[str, Figure]``: plots of the arrays in it, nothing computed;
- optionally ``headline(result) -> dict[str, float]``: figures for the bundle's manifest, named by
  the grammar of `ibinn.model_report`;
- a template of the same name, ``<chapter>.html.j2``, with the variables ``c`` (the dataclass),
  ``figures`` (inline SVG by name) and the filters of `training.report`.
"""
