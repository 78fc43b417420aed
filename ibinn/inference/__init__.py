"""Forms of a trained network that only observe images, with the same numbers and faster."""

from ibinn.inference.form import ENGINES, Engine, InferenceForm, make

__all__ = ["ENGINES", "Engine", "InferenceForm", "make"]
