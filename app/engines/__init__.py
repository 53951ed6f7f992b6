"""Engines read batches and write data files; none knows another."""
