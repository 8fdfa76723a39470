"""Everything on one machine: resources in an SQLite file, attempts as local processes."""
