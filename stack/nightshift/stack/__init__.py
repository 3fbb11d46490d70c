"""The embedded services of one data directory, and the faults that a drill injects into them."""
