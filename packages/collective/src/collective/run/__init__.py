"""What the `collective` command does, a file a verb."""
