"""Builds the services from the settings: the only package that names concrete classes."""
