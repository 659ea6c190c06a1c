"""How fast this machine is with a video, what limits it, and what would help."""
