"""Iceberg catalogs and tables: the guarded commit, manifests, reading back."""
