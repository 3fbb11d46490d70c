"""The `nightshift` command: parse, call one function of another room, print."""
