"""JSON over HTTP: each endpoint parses, awaits one service call, and answers."""
