"""The backend for a single machine: resources in an SQLite file, attempts as local processes."""
