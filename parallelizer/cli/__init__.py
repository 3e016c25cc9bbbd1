"""The command `parallelizer`: every command of it prints what reports and services say, and decides nothing itself."""
