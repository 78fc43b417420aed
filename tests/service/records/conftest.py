"""The databases of `databases` for the tests of this folder."""

from tests.service.records.databases import (  # noqa: F401
    postgresql,
    postgresql_url,
    records_url,
    sqlite_url,
)
