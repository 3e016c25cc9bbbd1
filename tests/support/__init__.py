"""What tests share: real servers, real workers, ways to wait for a condition."""
