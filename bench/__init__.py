"""Measures the product beside what a user would take instead, and beside the floor."""
