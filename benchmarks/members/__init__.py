"""What it costs to know the members of an object."""
