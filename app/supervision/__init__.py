"""Keeps the processes of one machine's service together: started, watched, told of in one log, and ended whole."""
