"""Live state in Redis: keys, Lua transitions, the client that calls them. The Redis client is imported only here."""
