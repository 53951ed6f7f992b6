"""Autoloader: keeps Apache Iceberg tables equal to the files that land in object storage."""
