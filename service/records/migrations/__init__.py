"""Revisions of the schema (Alembic); `service.records.upgrading` runs them."""
