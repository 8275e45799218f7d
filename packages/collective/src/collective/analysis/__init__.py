"""What is computed from codes, runs and students, and drawn."""
