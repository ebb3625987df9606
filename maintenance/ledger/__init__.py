"""The ledger: everything the jobs remember, in one SQLite file."""
