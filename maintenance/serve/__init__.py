"""The verdicts of ``maintenance.upload`` over HTTP."""
