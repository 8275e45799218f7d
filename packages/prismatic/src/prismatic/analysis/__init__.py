"""What reads finished runs, and draws them."""
