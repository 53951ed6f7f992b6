"""Kills loads at random moments while files keep landing, and proves that every row is in the table exactly once."""
