"""Where files are: local folders and object stores."""

from app.sources.factory import open_source

__all__ = ["open_source"]
