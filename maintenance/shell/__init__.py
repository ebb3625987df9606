"""The command-line shell common to all scripts."""
