"""The domain types: frozen records, enums and pure functions. This package imports no other part of the project."""
