"""A whole night on a sample store: what `bin/demo` makes, does and shows."""
