"""The built-in actions, one module per family, found by entry point like a user's own."""
