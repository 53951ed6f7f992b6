"""The warm worker: serves the work pool, each run in a process that is forked from one that has imported everything."""
