"""What can be seen of the processor from outside, and where tests can reach into it."""
