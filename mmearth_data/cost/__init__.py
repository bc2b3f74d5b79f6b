"""What a collection costs: an estimate before it, an account kept with the store during and after it.

``assumptions`` are the figures that nobody can know before asking the service, each with its source; ``estimate``
works them out for a plan and replaces those that the store's own ``account`` has measured.
"""
