"""The default engine: reads, decodes and encodes in child processes on this machine."""
