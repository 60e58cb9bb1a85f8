"""The command line: one module a command; `main` runs them, `terminal` prints, `commands` registers them."""
