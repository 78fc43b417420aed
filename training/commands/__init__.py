"""The commands of `ibinn-train`, by what they are about; `training.cli` puts them together."""
