"""Making a checkout runnable, and checking it: standard library only, any Python from 3.9 on."""
