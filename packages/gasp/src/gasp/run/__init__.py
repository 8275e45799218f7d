"""What the `gasp` command does, a file a verb."""
