"""Live state in Redis: keys, Lua transitions, and the client that calls them. Only here is the Redis client imported."""
