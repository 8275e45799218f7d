"""What is read from run folders, and drawn."""
