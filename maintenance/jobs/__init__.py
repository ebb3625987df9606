"""What each script does: one module per job."""
