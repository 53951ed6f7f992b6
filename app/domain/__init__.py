"""Nouns, errors, ports and planning. Standard library only."""
