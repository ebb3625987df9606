"""Rows of the ledger, all of them, for tests to look at."""


def all_rows(images):
    """Every row of a store, in the order of the walk."""
    found = []
    for page in images.pages():
        keys = [key for key, *_ in page]
        assert keys == sorted(keys)
        found += sorted(images.among(keys), key=lambda row: row.key)
    return found
