"""Making images smaller without changing what they show."""
