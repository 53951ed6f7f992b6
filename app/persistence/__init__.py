"""The ledger: all SQL."""
