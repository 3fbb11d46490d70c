"""Reading text that the model writes token by token."""
