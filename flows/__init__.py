"""When each step runs, how often it is retried, and what a person sees of it."""
